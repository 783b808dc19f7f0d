"""TrainingService."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, aclosing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from google.protobuf.empty_pb2 import Empty

from chainrule.v1 import online_pb2 as online_pb
from chainrule.v1 import training_job_pb2 as job_pb
from chainrule.v1 import training_service_pb2 as pb
from chainrule.v1 import training_service_pb2_grpc as stubs
from service.api.online import OnlineStreams
from service.api.paging import page
from service.api.watching import Watching
from service.cluster.cluster import Room
from service.data.datasets import Dataset, read_column
from service.errors import InvalidArgument, NotFound, Violations
from service.jobs.job import Job
from service.jobs.jobs import Jobs, new_id
from service.jobs.spec import JobSpec
from service.training.preparing import Preparing
from service.training.tables import check_lengths
from service.training.task import make_task, memory_bytes, remark, shuffle_window
from service.training.transfer import Transfer
from service.wire.names import require_name
from service.wire.spec import parse_spec, spec_message
from worker.arrays import Array

PATH = "training_job.spec"
LONGEST_TEXT = 100


class TrainingServicer(stubs.TrainingServiceServicer):
    """Training jobs over gRPC."""

    def __init__(
        self,
        jobs: Jobs,
        preparing: Preparing,
        transfer: Transfer,
        room: Callable[[], Room],
        watching: Watching,
        online: OnlineStreams,
    ) -> None:
        """`room` tells what the cluster has room for."""
        self._jobs = jobs
        self._preparing = preparing
        self._transfer = transfer
        self._room = room
        self._watching = watching
        self._online = online
        self._message = watching.describe

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
        watch = self._watching.watch(require_name(request.name, "jobs"), request.after_event)
        async with aclosing(watch) as updates:
            async for update in updates:
                yield update

    async def TrainOnline(  # noqa: N802
        self,
        requests: AsyncIterator[online_pb.TrainOnlineRequest],
        context: Any,
    ) -> AsyncIterator[online_pb.TrainOnlineResponse]:
        async with aclosing(self._online.serve(requests, context.add_done_callback)) as responses:
            async for response in responses:
                yield response

    def _create(self, request: pb.CreateTrainingJobRequest) -> job_pb.TrainingJob:
        asked = request.training_job
        _check_texts(request)
        spec = parse_spec(asked.spec, PATH)
        # Asked before whether the job could run now: the first request has settled that, and data may be gone since.
        if not request.validate_only and (made := self._jobs.requested(spec, asked.display_name, request.request_id)):
            return self._message(made)
        spec = self._transfer.resolved(spec, PATH)
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
        if spec.shuffle_window is None and spec.columns:
            spec = replace(spec, shuffle_window=shuffle_window(spec, dataset, room.held_bytes))
        if spec.padding is not None and spec.columns:
            inputs = read_column(place, dataset.column(spec.input_column) or 0)
            check_lengths(inputs, spec.padding, spec.input_column, f"{path}.data.input_column")
        return spec, remark(spec, dataset), self._transfer.taken(spec, task.network, path)


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
