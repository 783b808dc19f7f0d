"""What a client does with jobs."""

import uuid
from collections.abc import Iterator, Mapping
from functools import cached_property

from google.protobuf import json_format
from google.protobuf.field_mask_pb2 import FieldMask

from chainrule.connection import Connection
from chainrule.online import OnlineSession
from chainrule.resources import JOBS, full_name
from chainrule.v1 import training_service_pb2
from chainrule.v1.training_event_pb2 import TrainingEvent
from chainrule.v1.training_job_pb2 import TrainingJob, TrainingJobSpec, TrainingProgress
from chainrule.v1.training_service_pb2 import Checkpoint
from chainrule.v1.training_service_pb2_grpc import TrainingServiceStub
from chainrule.watching import watch

WATCH_DEADLINE = 600.0  # seconds; a watch that reaches it opens the next stream where this one stopped


class JobCalls(Connection):
    """The calls of TrainingService."""

    @cached_property
    def _training(self) -> TrainingServiceStub:
        return TrainingServiceStub(self._channel)

    def create_job(
        self, job: TrainingJob | TrainingJobSpec, *, request_id: str | None = None, validate_only: bool = False
    ) -> TrainingJob:
        """Puts a job in the queue, or, with `validate_only`, only checks it and fills in its defaults.

        Repeating a call with the same `request_id` (a new UUID if None) and job returns the first call's job. So the
        call is repeated when the coordinator stops, until the next one is there, within the call's deadline. Raises
        InvalidRequest with a violation for every wrong field.
        """
        if isinstance(job, TrainingJobSpec):
            job = TrainingJob(spec=job)
        request = training_service_pb2.CreateTrainingJobRequest(
            training_job=job, request_id=request_id or str(uuid.uuid4()), validate_only=validate_only
        )
        return self._call_again(self._training.CreateTrainingJob, request)

    def get_job(self, name: str) -> TrainingJob:
        """The job as it stands now."""
        request = training_service_pb2.GetTrainingJobRequest(name=full_name(JOBS, name))
        return self._call(self._training.GetTrainingJob, request)

    def jobs(self, *, page_size: int = 0, filter: str = "", order_by: str = "") -> Iterator[TrainingJob]:  # noqa: A002
        """Jobs, the newest first, fetched page by page (0: of the service's own size) as they are asked for.

            client.jobs(filter='state = RUNNING AND labels.team = blue', order_by="priority desc")

        ListTrainingJobsRequest says what a filter and an order may be. Raises InvalidRequest if one is something else.
        """
        request = training_service_pb2.ListTrainingJobsRequest(page_size=page_size, filter=filter, order_by=order_by)
        while True:
            page = self._call(self._training.ListTrainingJobs, request)
            yield from page.training_jobs
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def update_job(
        self,
        name: str,
        *,
        display_name: str | None = None,
        labels: Mapping[str, str] | None = None,
        priority: int | None = None,
        workers: int | None = None,
        min_workers: int | None = None,
        max_workers: int | None = None,
        learning_rate: float | None = None,
        etag: str = "",
        validate_only: bool = False,
    ) -> TrainingJob:
        """Changes some settings of a job, whatever it is doing, and returns it. `labels` replace all that it had.

        With `validate_only` nothing is changed, and what is returned is the job as it would be.

        UpdateTrainingJobRequest says from when each holds. With the `etag` that a job had, here and below, the call is
        refused if somebody has changed it since: raises Aborted. Raises InvalidRequest for values that can't be, and
        FailedPrecondition if the job has ended, of which only the display name and the labels can be changed.
        """
        given = {"display_name": display_name, "labels": labels, "learning_rate": learning_rate}
        of_spec = {
            "priority": priority,
            "workers": workers,
            "min_workers": min_workers,
            "max_workers": max_workers,
        }
        set_there = {field: value for field, value in given.items() if value is not None}
        set_in_spec = {field: value for field, value in of_spec.items() if value is not None}
        paths = [*set_there, *(f"spec.{field}" for field in set_in_spec)]
        if not paths:
            return self.get_job(name)
        job = TrainingJob(name=full_name(JOBS, name), etag=etag)
        json_format.ParseDict({**set_there, "spec": set_in_spec}, job)
        request = training_service_pb2.UpdateTrainingJobRequest(
            training_job=job, update_mask=FieldMask(paths=paths), validate_only=validate_only
        )
        return self._call(self._training.UpdateTrainingJob, request)

    def checkpoints(self, name: str, *, page_size: int = 0) -> Iterator[Checkpoint]:
        """The checkpoints that a job has now, the newest first. `create_model` makes a model of one."""
        request = training_service_pb2.ListCheckpointsRequest(parent=full_name(JOBS, name), page_size=page_size)
        while True:
            page = self._call(self._training.ListCheckpoints, request)
            yield from page.checkpoints
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def cancel_job(self, name: str, *, etag: str = "") -> TrainingJob:
        """Ends a job for good and returns it. Raises FailedPrecondition if it had ended already."""
        request = training_service_pb2.CancelTrainingJobRequest(name=full_name(JOBS, name), etag=etag)
        return self._call(self._training.CancelTrainingJob, request)

    def pause_job(self, name: str, *, etag: str = "") -> TrainingJob:
        """Has a job let go of its workers until it is resumed. Raises FailedPrecondition if it is paused or ended."""
        request = training_service_pb2.PauseTrainingJobRequest(name=full_name(JOBS, name), etag=etag)
        return self._call(self._training.PauseTrainingJob, request)

    def resume_job(self, name: str, *, etag: str = "") -> TrainingJob:
        """Puts a paused job back in the queue. Raises FailedPrecondition if it is not paused."""
        request = training_service_pb2.ResumeTrainingJobRequest(name=full_name(JOBS, name), etag=etag)
        return self._call(self._training.ResumeTrainingJob, request)

    def delete_job(self, name: str, *, etag: str = "") -> None:
        """Removes an ended job; its model stays. Raises FailedPrecondition if it has not ended."""
        request = training_service_pb2.DeleteTrainingJobRequest(name=full_name(JOBS, name), etag=etag)
        self._call(self._training.DeleteTrainingJob, request)

    def watch(
        self, name: str, *, after_event: int = 0, patience: float = 60.0
    ) -> Iterator[TrainingEvent | TrainingProgress]:
        """A job's events after number `after_event`, old ones and then new ones, up to its last; between them progress.

        When the coordinator goes away the watch goes on by itself once it is back: no event is missed, none comes
        twice. Raises Unavailable when nobody has answered for `patience` seconds.
        """

        def stream(after: int) -> Iterator[training_service_pb2.WatchTrainingJobResponse]:
            request = training_service_pb2.WatchTrainingJobRequest(name=full_name(JOBS, name), after_event=after)
            call = self._training.WatchTrainingJob(request, timeout=WATCH_DEADLINE)
            try:
                yield from call
            finally:
                call.cancel()  # or the service goes on sending to a caller who has stopped looking

        return watch(stream, self.address, after_event, patience)

    def train_online(
        self, job: TrainingJob | TrainingJobSpec | str, *, timeout: float = 600.0, patience: float = 60.0
    ) -> OnlineSession:
        """A session in which a job, a new one or one by its name, learns from the mini-batches that it is sent.

        The data of its specification must be `online`. An answer may take `timeout` seconds, and the job so long to
        start. When the stream breaks the session goes on by itself, from what it has kept. Raises Unavailable when
        nobody has answered for `patience` seconds, DeadlineExceeded, and FailedPrecondition if the job has ended or
        was paused, or somebody else sends to it.
        """
        name = full_name(JOBS, job) if isinstance(job, str) else self.create_job(job).name
        return OnlineSession(
            self._training.TrainOnline, lambda: self.get_job(name), name, self.address, timeout, patience
        )

    def wait(self, name: str) -> TrainingJob:
        """Waits until a job has ended, however long that takes, and returns it. Raises as `watch` does."""
        for _ in self.watch(name, after_event=self.get_job(name).last_event):
            pass
        return self.get_job(name)
