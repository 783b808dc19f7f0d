"""Whose turn it is: first come, first served, by free workers.

`plan` decides from a picture of the queue; the thread around it starts what was decided. A job at the head that needs
more than is free holds up those behind it, so that a large job is never starved by small ones.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from service.jobs.job import Job, Queued
from service.jobs.jobs import Jobs

GROWTH_SECONDS = 5.0
"""How often to look whether the cluster has grown."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Plan:
    """Which queued jobs start now, and why each of the others waits, by job id."""

    starts: tuple[str, ...]
    reasons: dict[str, str]


def plan(queued: Sequence[Job], held: int, capacity: int) -> Plan:
    """Decides for the queued jobs, the oldest first, with `held` of the cluster's `capacity` workers in use."""
    free = capacity - held
    starts: list[str] = []
    reasons: dict[str, str] = {}
    for job in queued:
        wanted = job.spec.workers
        if reasons:
            reasons[job.id] = f"waits behind {len(reasons)} older job{'s' if len(reasons) > 1 else ''} in the queue"
        elif wanted <= free:
            starts.append(job.id)
            free -= wanted
        elif wanted > capacity:
            reasons[job.id] = f"waits for {wanted} workers; the cluster has room for {capacity}"
        else:
            reasons[job.id] = f"waits for {wanted} workers; {max(free, 0)} of {capacity} are free"
    return Plan(tuple(starts), reasons)


class Scheduler:
    """Starts queued jobs as soon as there is room."""

    def __init__(self, jobs: Jobs, capacity: Callable[[], int], run: Callable[[str], None]) -> None:
        """`run` trains a job to its end, or until the service stops; it is called in a thread of the job's own."""
        self._jobs = jobs
        self._capacity = capacity
        self._run = run
        self._lock = threading.Lock()
        self._threads: dict[str, threading.Thread] = {}
        self._held: dict[str, int] = {}
        """How many workers each thread holds: until it ends, even if its job has ended before."""
        self._reasons: dict[str, str] = {}
        self._changed = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name="scheduler", daemon=True)
        jobs.listen(lambda _job: self._changed.set())

    def start(self) -> None:
        """Begins to start jobs."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Starts no more jobs, and waits up to `timeout` seconds for those that run to return."""
        deadline = time.monotonic() + timeout
        self._stopping = True
        self._changed.set()
        self._thread.join(timeout)
        with self._lock:
            threads = list(self._threads.values())
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def reason(self, job_id: str) -> str:
        """Why a queued job waits; empty if it doesn't."""
        return self._reasons.get(job_id, "")

    def _loop(self) -> None:
        while not self._stopping:
            self._changed.clear()
            try:
                self._start_next()
            except Exception:
                # Such as a cluster that doesn't answer. Nothing was started; the next round tries again.
                _log.exception("no jobs could be started")
            # A cluster may grow without telling anyone.
            self._changed.wait(timeout=GROWTH_SECONDS)

    def _start_next(self) -> None:
        capacity = self._capacity()
        with self._lock:
            queued = [job for job in self._jobs.all() if isinstance(job.state, Queued) and job.id not in self._held]
            decided = plan(queued, sum(self._held.values()), capacity)
            self._reasons = decided.reasons
            for job in queued:
                if job.id in decided.starts:
                    self._held[job.id] = job.spec.workers
                    self._threads[job.id] = threading.Thread(target=self._run_one, args=(job.id,), daemon=True)
                    self._threads[job.id].start()

    def _run_one(self, job_id: str) -> None:
        try:
            self._run(job_id)
        except Exception:
            _log.exception("job was left as it is; it goes on when the coordinator starts again", job=job_id)
        finally:
            with self._lock:
                del self._threads[job_id], self._held[job_id]
            self._changed.set()
