"""All jobs of the service: created, changed and read here, by any thread.

Durable first: a change is in the store before anyone can see it. What changes several times a second and needn't
outlive the process (progress) is kept beside, in memory.
"""

import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType

from service.access.principals import caller, require_owner
from service.errors import Aborted, AlreadyExists, FailedPrecondition, NotFound, ResourceExhausted
from service.jobs.events import Cancelled, Event, Paused, Progress, Queued, SettingsChanged, StateChanged
from service.jobs.job import Job, advance, is_no_news
from service.jobs.spec import JobSpec
from service.jobs.store import JobStore, Record
from service.training.diagnostics import told

MOST_UPDATES = 10_000
"""How often a job may be changed: what it tells of that is kept as long as the job."""

NO_LABELS: Mapping[str, str] = MappingProxyType({})


class Jobs:
    """The jobs, in the order in which they were created."""

    def __init__(
        self,
        store: JobStore,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        most_unfinished: int = 1_000,
    ) -> None:
        """A principal may have `most_unfinished` jobs that haven't ended."""
        self._store = store
        self._most_unfinished = most_unfinished
        self._clock = clock
        self._lock = threading.RLock()
        self._jobs = {job.id: job for job in store.load()}
        self._progress: dict[str, Progress] = {}
        self._listeners: list[Callable[[str], None]] = []

    def listen(self, listener: Callable[[str], None]) -> None:
        """Has `listener` called with a job's id after each of its events and its first step. It must return at once."""
        self._listeners.append(listener)

    def create(
        self,
        spec: JobSpec,
        rows: int,
        display_name: str,
        request_id: str,
        remark: str = "",
        job_id: str = "",
        labels: Mapping[str, str] = NO_LABELS,
    ) -> Job:
        """Puts a new job in the queue, or returns the one that the same request made before.

        Its first event carries what is to be remarked of it, if anything is. Its id is `job_id`, of `new_id`, for
        those who need it before there is a job. Raises AlreadyExists if the request id was used for a different job,
        ResourceExhausted if the caller has too many that haven't ended.
        """
        with self._lock:
            if made := self.requested(spec, display_name, request_id, labels):
                return made
            who = caller().name
            self._check_quota(who)
            now = self._clock()
            job = Job(job_id or new_id(), display_name, spec, rows, now, created_by=who, labels=dict(labels))
            event = StateChanged(Queued(remark))
            job = advance(job, event, now)
            self._store.create(job, request_id, Record(job.last_event, now, event))
            self._jobs[job.id] = job
        self._tell(job.id)
        return job

    def requested(
        self, spec: JobSpec, display_name: str, request_id: str, labels: Mapping[str, str] = NO_LABELS
    ) -> Job | None:
        """The job that the caller's same request made before. Raises AlreadyExists if it made a different one."""
        with self._lock:
            made = self._store.requested(request_id, caller().name) if request_id else None
            job = self._jobs[made.id] if made else None
        if made is None or job is None:
            return None
        if spec.shuffle_window is None:
            spec = replace(spec, shuffle_window=made.spec.shuffle_window)
        if spec.initial_model.startswith("@"):  # which may stand for another model by now
            spec = replace(spec, initial_model=made.spec.initial_model)
        if (made.spec, made.display_name, made.labels) != (spec, display_name, labels):
            raise AlreadyExists(
                f"this request_id made {job.name}, which is a different job; use a new request_id for a new job",
                reason="REQUEST_ID_REUSED",
            )
        return job

    def get(self, job_id: str) -> Job:
        """A job as it stands. Raises NotFound."""
        try:
            return self._jobs[job_id]
        except KeyError:
            raise NotFound(f"jobs/{job_id}") from None

    def has(self, job_id: str) -> bool:
        """Whether there is such a job."""
        return job_id in self._jobs

    def all(self) -> list[Job]:
        """All jobs, the oldest first."""
        with self._lock:
            return list(self._jobs.values())

    def events(self, job_id: str, after: int, most: int) -> list[Record]:
        """Up to `most` of a job's events that follow number `after`."""
        return self._store.events(job_id, after, most)

    def record(self, job_id: str, *events: Event) -> bool:
        """Makes events durable, all in one go, and then visible. Those that the job already has are left out.

        Returns False, and does nothing, if the job has ended or is gone: the one who runs a job may learn only by this
        that it was cancelled. Raises IllegalEvent.
        """
        with self._lock:
            job = self._jobs.get(job_id)
            if job is None or job.has_ended:
                return False
            changed = self._append(job, *events)
        if changed is not job:
            self._tell(job_id)
        return True

    def update(
        self, job_id: str, etag: str, change: Callable[[Job], SettingsChanged], *, validate_only: bool = False
    ) -> Job:
        """Changes a job's settings as `change` says, which may refuse; if that is to nothing, nothing happens.

        With `validate_only` the job stays as it is, and what is returned is how it would be.

        Raises NotFound, PermissionDenied, Aborted, or FailedPrecondition if the job has ended, and only its names and
        labels can be changed, or was changed too often.
        """
        with self._lock:
            job = self._own(job_id, etag)
            event = change(job)
            if event == SettingsChanged():
                return job
            if job.updates >= MOST_UPDATES:
                raise FailedPrecondition(
                    f"{job.name} was changed {job.updates:,} times, as often as it may be", reason="TOO_MANY_UPDATES"
                )
            if job.has_ended and event != SettingsChanged(event.display_name, event.labels):
                raise FailedPrecondition(
                    f"{job.name} has ended: it is {job.state.kind}; its display_name and labels alone can be changed",
                    reason="JOB_HAS_ENDED",
                )
            if validate_only:
                as_it_would_be = advance(job, event, self._clock())
                return replace(as_it_would_be, last_event=job.last_event, revision=job.revision)
            job = self._append(job, replace(event, changed_by=caller().name))
        self._tell(job_id)
        return job

    def cancel(self, job_id: str, etag: str = "") -> Job:
        """Ends a job for good. Raises NotFound, PermissionDenied, Aborted, or FailedPrecondition if it has ended."""
        with self._lock:
            job = self._own(job_id, etag)
            if job.has_ended:
                raise FailedPrecondition(
                    f"{job.name} has ended already: it is {job.state.kind}", reason="JOB_HAS_ENDED"
                )
            job = self._append(job, StateChanged(Cancelled()))
        self._tell(job_id)
        return job

    def pause(self, job_id: str, etag: str = "") -> Job:
        """Has a job let go of its workers until resumed. Raises as `cancel` does."""
        with self._lock:
            job = self._own(job_id, etag)
            if job.has_ended or isinstance(job.state, Paused):
                raise FailedPrecondition(f"{job.name} is {job.state.kind}; it can't be paused", reason="JOB_NOT_ACTIVE")
            job = self._append(job, StateChanged(Paused()))
        self._tell(job_id)
        return job

    def resume(self, job_id: str, etag: str = "") -> Job:
        """Puts a paused job back in the queue. Raises as `cancel` does, with FailedPrecondition if it isn't paused."""
        with self._lock:
            job = self._own(job_id, etag)
            if not isinstance(job.state, Paused):
                raise FailedPrecondition(f"{job.name} is {job.state.kind}; it isn't paused", reason="JOB_NOT_PAUSED")
            job = self._append(job, StateChanged(Queued()), by_request=True)
        self._tell(job_id)
        return job

    def delete(self, job_id: str, etag: str = "") -> None:
        """Removes an ended job and its events. Raises as `cancel` does, with FailedPrecondition if it hasn't ended."""
        with self._lock:
            job = self._own(job_id, etag)
            if not job.has_ended:
                raise FailedPrecondition(
                    f"{job.name} is {job.state.kind}; cancel it before deleting it", reason="JOB_NOT_ENDED"
                )
            self._store.delete(job_id)
            del self._jobs[job_id]
            self._progress.pop(job_id, None)
        self._tell(job_id)

    def requeue_interrupted(self) -> None:
        """Puts the jobs that were under way when the coordinator ended back in the queue."""
        for job in self.all():
            if job.is_at_work:
                self.record(job.id, StateChanged(Queued("goes on after a restart of the coordinator")))

    def set_progress(self, job_id: str, progress: Progress) -> None:
        """Replaces a job's progress, unless the job is gone."""
        with self._lock:
            has_begun = self.progress(job_id).step > 0
            if job_id in self._jobs:
                self._progress[job_id] = progress
        if not has_begun and progress.step:
            self._tell(job_id)

    def progress(self, job_id: str) -> Progress:
        """The progress of a job, as far as this process has run it."""
        return self._progress.get(job_id, Progress())

    def _own(self, job_id: str, etag: str) -> Job:
        """A job that the caller may change, and that is as it was when it had that etag, if one is given."""
        job = self.get(job_id)
        require_owner(job.name, job.created_by)
        if etag and etag != job.etag:
            raise Aborted(
                f"{job.name} has been changed since it had the etag {etag[:100]!r}: it is {job.state.kind}, with the "
                f"etag {job.etag!r}; look at it again, and then decide",
                reason="ETAG_MISMATCH",
            )
        return job

    def _check_quota(self, who: str) -> None:
        unfinished = sum(1 for job in self._jobs.values() if job.created_by == who and not job.has_ended)
        if unfinished >= self._most_unfinished:
            whose = f"{who!r} has" if who else "there are"
            raise ResourceExhausted(
                f"{whose} {unfinished:,} jobs that haven't ended, as many as there may be (--unfinished-jobs); "
                "wait for one to end, or cancel it",
                reason="TOO_MANY_JOBS",
            )

    def _append(self, job: Job, *events: Event, by_request: bool = False) -> Job:
        now = self._clock()
        records = []
        for event in events:
            if by_request or not is_no_news(job, event):
                for each in told(job, event):
                    job = advance(job, each, now)
                    records.append(Record(job.last_event, now, each))
        if records:
            self._store.append(job.id, *records)
            self._jobs[job.id] = job
        return job

    def _tell(self, job_id: str) -> None:
        for listener in self._listeners:
            listener(job_id)


def new_id() -> str:
    """Ten letters: about 47 bits, so that ids need no coordination and can't be guessed by counting."""
    return "".join(secrets.choice("abcdefghijkmnpqrstuvwxyz") for _ in range(10))
