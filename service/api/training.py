"""TrainingService."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from google.protobuf.empty_pb2 import Empty

from chainrule.v1 import training_job_pb2 as job_pb
from chainrule.v1 import training_service_pb2 as pb
from chainrule.v1 import training_service_pb2_grpc as stubs
from service.api.paging import page
from service.cluster.cluster import Room
from service.data.datasets import Dataset, read_column
from service.errors import InvalidArgument, NotFound, Unavailable, Violations
from service.jobs.job import Job, Queued
from service.jobs.jobs import Jobs, new_id
from service.jobs.spec import JobSpec
from service.training.preparing import Preparing
from service.training.tables import check_lengths
from service.training.task import make_task, memory_bytes, remark, shuffle_window
from service.training.transfer import Transfer
from service.wire.job import event_message, job_message, progress_message
from service.wire.names import require_name
from service.wire.spec import parse_spec, spec_message
from worker.arrays import Array

PATH = "training_job.spec"
LONGEST_TEXT = 100
EVENTS_AT_ONCE = 500
PROGRESS_SECONDS = 0.25


class TrainingServicer(stubs.TrainingServiceServicer):
    """Training jobs over gRPC."""

    def __init__(
        self,
        jobs: Jobs,
        preparing: Preparing,
        transfer: Transfer,
        room: Callable[[], Room],
        waiting: Callable[[str], str],
    ) -> None:
        """`room` tells what the cluster has room for; `waiting`, why a queued job waits."""
        self._jobs = jobs
        self._preparing = preparing
        self._transfer = transfer
        self._room = room
        self._waiting = waiting
        self._stopping = False
        self._watchers: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        loop = asyncio.get_running_loop()
        jobs.listen(lambda job_id: _call_soon(loop, self._wake, job_id))

    async def CreateTrainingJob(self, request: pb.CreateTrainingJobRequest, context: object) -> job_pb.TrainingJob:  # noqa: ARG002, N802
        return await asyncio.to_thread(self._create, request)

    async def GetTrainingJob(self, request: pb.GetTrainingJobRequest, context: object) -> job_pb.TrainingJob:  # noqa: ARG002, N802
        return self._message(self._jobs.get(require_name(request.name, "jobs")))

    async def ListTrainingJobs(  # noqa: N802
        self,
        request: pb.ListTrainingJobsRequest,
        context: object,  # noqa: ARG002
    ) -> pb.ListTrainingJobsResponse:
        jobs, token = page(self._jobs.all(), _creation, self._message, request, newest_first=True)
        return pb.ListTrainingJobsResponse(training_jobs=jobs, next_page_token=token)

    async def CancelTrainingJob(self, request: pb.CancelTrainingJobRequest, context: object) -> job_pb.TrainingJob:  # noqa: ARG002, N802
        return self._message(await asyncio.to_thread(self._jobs.cancel, require_name(request.name, "jobs")))

    async def PauseTrainingJob(self, request: pb.PauseTrainingJobRequest, context: object) -> job_pb.TrainingJob:  # noqa: ARG002, N802
        return self._message(await asyncio.to_thread(self._jobs.pause, require_name(request.name, "jobs")))

    async def ResumeTrainingJob(self, request: pb.ResumeTrainingJobRequest, context: object) -> job_pb.TrainingJob:  # noqa: ARG002, N802
        return self._message(await asyncio.to_thread(self._jobs.resume, require_name(request.name, "jobs")))

    async def DeleteTrainingJob(self, request: pb.DeleteTrainingJobRequest, context: object) -> Empty:  # noqa: ARG002, N802
        await asyncio.to_thread(self._jobs.delete, require_name(request.name, "jobs"))
        return Empty()

    async def WatchTrainingJob(  # noqa: N802
        self,
        request: pb.WatchTrainingJobRequest,
        context: object,  # noqa: ARG002
    ) -> AsyncIterator[pb.WatchTrainingJobResponse]:
        job_id = require_name(request.name, "jobs")
        seen = request.after_event
        last = self._jobs.get(job_id).last_event
        if not 0 <= seen <= last:
            raise InvalidArgument.of("after_event", f"is {seen}; {request.name} has the events 1 to {last} so far")
        changed = asyncio.Event()
        self._watchers[job_id].add(changed)
        try:
            shown = None
            while True:
                changed.clear()
                while records := await asyncio.to_thread(self._jobs.events, job_id, seen, EVENTS_AT_ONCE):
                    for record in records:
                        yield pb.WatchTrainingJobResponse(event=event_message(job_id, record))
                    seen = records[-1].number
                job = self._jobs.get(job_id)
                if job.last_event > seen:
                    continue
                if job.has_ended:
                    return
                if self._stopping:
                    # Not a plain end of the stream, which would mean that there are no more events.
                    raise Unavailable("the coordinator is stopping; watch again soon", reason="COORDINATOR_STOPPING")
                progress = progress_message(job, self._jobs.progress(job_id))
                if progress != shown:
                    yield pb.WatchTrainingJobResponse(progress=progress)
                    shown = progress
                await _first(changed, PROGRESS_SECONDS if job.is_at_work else None)
        finally:
            self._watchers[job_id].discard(changed)
            if not self._watchers[job_id]:
                del self._watchers[job_id]

    def stop_watching(self) -> None:
        """Ends every watch so that its client knows to come back."""
        self._stopping = True
        for job_id in list(self._watchers):
            self._wake(job_id)

    def _create(self, request: pb.CreateTrainingJobRequest) -> job_pb.TrainingJob:
        asked = request.training_job
        _check_texts(request)
        spec = parse_spec(asked.spec, PATH)
        # Asked before whether the job could run now: the first request has settled that, and data may be gone since.
        if not request.validate_only and (made := self._jobs.requested(spec, asked.display_name, request.request_id)):
            return self._message(made)
        job_id = new_id()
        with self._prepared(spec, job_id) as (dataset, place):
            spec, remarked, taken = self._feasible(spec, dataset, place)
            if request.validate_only:
                return job_pb.TrainingJob(display_name=asked.display_name, spec=spec_message(spec))
            with self._transfer.kept(job_id, taken):  # before there is a job, so that there is none without them
                return self._message(
                    self._jobs.create(spec, dataset.rows, asked.display_name, request.request_id, remarked, job_id)
                )

    @contextmanager
    def _prepared(self, spec: JobSpec, job_id: str) -> Iterator[tuple[Dataset, Path]]:
        """What the job is to learn from, and where that lies. Raises InvalidArgument."""
        with ExitStack() as stack:
            try:
                found = stack.enter_context(self._preparing.prepared(spec, job_id, PATH))
            except NotFound as error:
                raise InvalidArgument.of(
                    f"{PATH}.data.dataset", f"{error.message}; upload it first", reason=error.reason
                ) from None
            yield found

    def _feasible(self, spec: JobSpec, dataset: Dataset, place: Path) -> tuple[JobSpec, str, Mapping[str, Array]]:
        """Checks whether the job could run here.

        Returns it complete, a remark, and what it takes over from a model. Raises InvalidArgument.
        """
        path = PATH
        task = make_task(spec, dataset, path)
        room = self._room()
        if spec.workers > room.workers and not room.grows:
            raise InvalidArgument.of(
                f"{path}.workers",
                f"is {spec.workers}; the cluster has room for {room.workers}",
                reason="TOO_MANY_WORKERS",
            )
        if (needed := memory_bytes(task, spec)) > room.memory_bytes:
            raise InvalidArgument.of(
                f"{path}.network.layers",
                f"needs {needed:,} bytes for parameters, gradients and optimizer; the coordinator's machine has "
                f"{room.memory_bytes:,}: use smaller layers or fewer shards",
                reason="TOO_LITTLE_MEMORY",
            )
        if spec.shuffle_window is None and spec.environment is None:
            spec = replace(spec, shuffle_window=shuffle_window(spec, dataset, room.held_bytes))
        if spec.padding is not None and spec.environment is None:
            inputs = read_column(place, dataset.column(spec.input_column) or 0)
            check_lengths(inputs, spec.padding, spec.input_column, f"{path}.data.input_column")
        return spec, remark(spec, dataset), self._transfer.taken(spec, task.network, path)

    def _message(self, job: Job) -> job_pb.TrainingJob:
        waiting = self._waiting(job.id) if isinstance(job.state, Queued) else ""
        return job_message(job, progress_message(job, self._jobs.progress(job.id)), waiting)

    def _wake(self, job_id: str) -> None:
        for watcher in self._watchers.get(job_id, ()):
            watcher.set()


def _check_texts(request: pb.CreateTrainingJobRequest) -> None:
    violations = Violations()
    if len(request.training_job.display_name) > LONGEST_TEXT or not request.training_job.display_name.isprintable():
        violations.add("training_job.display_name", f"must be at most {LONGEST_TEXT} printable characters")
    request_id = request.request_id
    if len(request_id) > LONGEST_TEXT or not (request_id.isascii() and request_id.isprintable()):
        violations.add("request_id", f"must be at most {LONGEST_TEXT} printable ASCII characters")
    violations.raise_any()


def _creation(job: Job) -> str:
    """Sorts jobs by age."""
    return f"{job.created.isoformat(timespec='microseconds')} {job.id}"


def _call_soon(loop: asyncio.AbstractEventLoop, call: Callable[[str], None], job_id: str) -> None:
    """From any thread; nothing once the service has stopped."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(call, job_id)


async def _first(event: asyncio.Event, timeout: float | None) -> None:
    try:
        await asyncio.wait_for(event.wait(), timeout)
    except TimeoutError:
        return
