"""Deletes jobs that ended long ago, if whoever runs the service wants that: with their events and checkpoints."""

import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from service.errors import NotFound, ServiceError
from service.jobs.job import Job
from service.jobs.jobs import Jobs
from service.models.aliases import Aliases
from service.models.registry import Models

LOOK_SECONDS = 10.0
"""How often to look for jobs to delete."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Keep:
    """Which of the jobs that have ended are kept."""

    seconds: float | None = None
    """Those that ended less than so long ago; None for all."""
    jobs: int | None = None
    """The so many that ended last; None for all."""


KEEP_ALL = Keep()


def surplus(jobs: Iterable[Job], keep: Keep, now: datetime) -> list[Job]:
    """The jobs that aren't to be kept, those that ended last first. One that hasn't ended is never among them."""
    ended = sorted(((job.ended, job.id, job) for job in jobs if job.has_ended and job.ended), reverse=True)
    oldest = None if keep.seconds is None else now - timedelta(seconds=keep.seconds)
    return [
        job
        for number, (time, _, job) in enumerate(ended)
        if (keep.jobs is not None and number >= keep.jobs) or (oldest is not None and time < oldest)
    ]


class Retention:
    """Deletes what isn't to be kept, in a thread of its own."""

    def __init__(self, jobs: Jobs, keep: Keep, models: Models | None, aliases: Aliases) -> None:
        """`models` are those that go with their jobs, unless an alias stands for one; None to leave all alone."""
        self._jobs = jobs
        self._keep = keep
        self._models = models
        self._aliases = aliases
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="retention", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends with the job at hand."""
        self._stop.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._stop.is_set():
            try:
                self._delete(surplus(self._jobs.all(), self._keep, datetime.now(UTC)))
            except OSError:  # such as a full disk, where even deleting takes room
                _log.exception("can't delete jobs that ended long ago; tries again")
            self._stop.wait(LOOK_SECONDS)

    def _delete(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            if self._stop.is_set():
                return
            with suppress(ServiceError):  # a client was faster
                # The model first: without its job nobody would look for it any more.
                if self._models is not None and not self._aliases.of(job.id):
                    with suppress(NotFound):
                        self._models.delete(job.id)
                self._jobs.delete(job.id)
                _log.info("a job that ended long ago was deleted", job=job.id, ended=str(job.ended))
