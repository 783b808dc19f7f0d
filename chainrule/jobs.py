"""What a client does with jobs."""

import uuid
from collections.abc import Iterator
from functools import cached_property

from chainrule.connection import Connection
from chainrule.resources import JOBS, full_name
from chainrule.v1 import training_service_pb2
from chainrule.v1.training_event_pb2 import TrainingEvent
from chainrule.v1.training_job_pb2 import TrainingJob, TrainingJobSpec, TrainingProgress
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

        Repeating a call with the same `request_id` (a new UUID if None) and job returns the first call's job. Raises
        InvalidRequest with a violation for every wrong field.
        """
        if isinstance(job, TrainingJobSpec):
            job = TrainingJob(spec=job)
        request = training_service_pb2.CreateTrainingJobRequest(
            training_job=job, request_id=request_id or str(uuid.uuid4()), validate_only=validate_only
        )
        return self._call(self._training.CreateTrainingJob, request)

    def get_job(self, name: str) -> TrainingJob:
        """The job as it stands now."""
        request = training_service_pb2.GetTrainingJobRequest(name=full_name(JOBS, name))
        return self._call(self._training.GetTrainingJob, request)

    def jobs(self, *, page_size: int = 0) -> Iterator[TrainingJob]:
        """All jobs, the newest first, fetched page by page (0: of the service's own size) as they are asked for."""
        request = training_service_pb2.ListTrainingJobsRequest(page_size=page_size)
        while True:
            page = self._call(self._training.ListTrainingJobs, request)
            yield from page.training_jobs
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def cancel_job(self, name: str) -> TrainingJob:
        """Ends a job for good and returns it. Raises FailedPrecondition if it had ended already."""
        request = training_service_pb2.CancelTrainingJobRequest(name=full_name(JOBS, name))
        return self._call(self._training.CancelTrainingJob, request)

    def pause_job(self, name: str) -> TrainingJob:
        """Has a job let go of its workers until it is resumed. Raises FailedPrecondition if it is paused or ended."""
        request = training_service_pb2.PauseTrainingJobRequest(name=full_name(JOBS, name))
        return self._call(self._training.PauseTrainingJob, request)

    def resume_job(self, name: str) -> TrainingJob:
        """Puts a paused job back in the queue. Raises FailedPrecondition if it is not paused."""
        request = training_service_pb2.ResumeTrainingJobRequest(name=full_name(JOBS, name))
        return self._call(self._training.ResumeTrainingJob, request)

    def delete_job(self, name: str) -> None:
        """Removes an ended job; its model stays. Raises FailedPrecondition if it has not ended."""
        request = training_service_pb2.DeleteTrainingJobRequest(name=full_name(JOBS, name))
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

    def wait(self, name: str) -> TrainingJob:
        """Waits until a job has ended, however long that takes, and returns it. Raises as `watch` does."""
        for _ in self.watch(name, after_event=self.get_job(name).last_event):
            pass
        return self.get_job(name)
