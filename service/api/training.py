"""TrainingService."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, aclosing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from google.protobuf.empty_pb2 import Empty

from chainrule.v1 import online_pb2 as online_pb
from chainrule.v1 import training_job_pb2 as job_pb
from chainrule.v1 import training_service_pb2 as pb
from chainrule.v1 import training_service_pb2_grpc as stubs
from service.api.listing import parse_listing
from service.api.online import OnlineStreams
from service.api.paging import page
from service.api.watching import Watching
from service.cluster.cluster import Room
from service.data.datasets import Dataset, read_column
from service.errors import InvalidArgument, NotFound, Violations
from service.jobs.events import SettingsChanged
from service.jobs.job import Job
from service.jobs.jobs import Jobs, new_id
from service.jobs.spec import JobSpec
from service.training.preparing import Preparing
from service.training.promotion import Promotion
from service.training.tables import check_lengths
from service.training.task import make_task, memory_bytes, remark, shuffle_window
from service.training.transfer import Transfer
from service.wire.job import checkpoint_message
from service.wire.names import require_name
from service.wire.settings import check_display_name, parse_labels, parse_settings
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
        promotion: Promotion,
        online: OnlineStreams,
    ) -> None:
        """`room` tells what the cluster has room for."""
        self._jobs = jobs
        self._preparing = preparing
        self._transfer = transfer
        self._room = room
        self._watching = watching
        self._online = online
        self._promotion = promotion
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
        listing = parse_listing(request)
        wanted = (job for job in self._jobs.all() if listing.has(job))
        jobs, token = page(wanted, listing.place, self._message, request, of=listing.text)
        return pb.ListTrainingJobsResponse(training_jobs=jobs, next_page_token=token)

    async def UpdateTrainingJob(self, request: pb.UpdateTrainingJobRequest, context: object) -> job_pb.TrainingJob:  # noqa: ARG002, N802
        job_id = require_name(request.training_job.name, "jobs", "training_job.name")
        update = partial(self._jobs.update, validate_only=request.validate_only)
        change = partial(self._settings, request)
        return self._message(await asyncio.to_thread(update, job_id, request.training_job.etag, change))

    async def CancelTrainingJob(self, request: pb.CancelTrainingJobRequest, context: object) -> job_pb.TrainingJob:  # noqa: ARG002, N802
        return self._message(
            await asyncio.to_thread(self._jobs.cancel, require_name(request.name, "jobs"), request.etag)
        )

    async def PauseTrainingJob(self, request: pb.PauseTrainingJobRequest, context: object) -> job_pb.TrainingJob:  # noqa: ARG002, N802
        return self._message(
            await asyncio.to_thread(self._jobs.pause, require_name(request.name, "jobs"), request.etag)
        )

    async def ResumeTrainingJob(self, request: pb.ResumeTrainingJobRequest, context: object) -> job_pb.TrainingJob:  # noqa: ARG002, N802
        return self._message(
            await asyncio.to_thread(self._jobs.resume, require_name(request.name, "jobs"), request.etag)
        )

    async def DeleteTrainingJob(self, request: pb.DeleteTrainingJobRequest, context: object) -> Empty:  # noqa: ARG002, N802
        await asyncio.to_thread(self._jobs.delete, require_name(request.name, "jobs"), request.etag)
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

    async def ListCheckpoints(self, request: pb.ListCheckpointsRequest, context: object) -> pb.ListCheckpointsResponse:  # noqa: ARG002, N802
        job_id = require_name(request.parent, "jobs", "parent")
        job, saved = self._jobs.get(job_id), await asyncio.to_thread(self._promotion.saved, job_id)
        message = partial(checkpoint_message, job)
        found, token = page(saved, lambda each: (-each.step,), message, request, of=job_id)
        return pb.ListCheckpointsResponse(checkpoints=found, next_page_token=token)

    def _create(self, request: pb.CreateTrainingJobRequest) -> job_pb.TrainingJob:
        asked = request.training_job
        labels = _check_texts(request)
        spec = parse_spec(asked.spec, PATH)
        # Asked before whether the job could run now: the first request has settled that, and data may be gone since.
        if not request.validate_only and (
            made := self._jobs.requested(spec, asked.display_name, request.request_id, labels)
        ):
            return self._message(made)
        spec = self._transfer.resolved(spec, PATH)
        job_id = new_id()
        with self._prepared(spec, job_id) as (dataset, place):
            spec, remarked, taken = self._feasible(spec, dataset, place)
            if request.validate_only:
                return job_pb.TrainingJob(display_name=asked.display_name, spec=spec_message(spec), labels=labels)
            with self._transfer.kept(job_id, taken):  # before there is a job, so that there is none without them
                texts = (asked.display_name, request.request_id, remarked)
                return self._message(self._jobs.create(spec, dataset.rows, *texts, job_id, labels))

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
        _check_workers(spec.workers, room)
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

    def _settings(self, request: pb.UpdateTrainingJobRequest, job: Job) -> SettingsChanged:
        """What a request changes of a job. Raises InvalidArgument."""
        change = parse_settings(request, job)
        if change.workers is not None:
            _check_workers(change.workers, self._room())
        return change


def _check_workers(workers: int, room: Room) -> None:
    if workers > room.workers and not room.grows:
        raise InvalidArgument.of(
            f"{PATH}.workers", f"is {workers}; the cluster has room for {room.workers}", reason="TOO_MANY_WORKERS"
        )


def _check_texts(request: pb.CreateTrainingJobRequest) -> dict[str, str]:
    """The job's labels, if these and all other words are as they must be. Raises InvalidArgument."""
    violations = Violations()
    check_display_name(request.training_job.display_name, violations)
    labels = parse_labels(request.training_job.labels, violations)
    request_id = request.request_id
    if len(request_id) > LONGEST_TEXT or not (request_id.isascii() and request_id.isprintable()):
        violations.add("request_id", f"must be at most {LONGEST_TEXT} printable ASCII characters")
    violations.raise_any()
    return labels
