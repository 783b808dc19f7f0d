"""Whose turn it is, and with how many workers.

First come, first served, by priority; waiting raises a job's priority, so that none waits for ever. A job starts as
soon as its fewest workers are free, with as many as it wants. One at the head that needs more than is free holds up
those behind it, or small jobs would starve a large one; but not if it needs more than there is at all. What nobody
waits for goes to those that can use more, and is asked back when somebody waits again.

`plan` decides from a picture of the queue; the thread around it does what was decided.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

import structlog

from service.jobs.events import Queued
from service.jobs.job import Job
from service.jobs.jobs import Jobs

LOOK_SECONDS = 1.0
"""How often to look whether the cluster has grown, or shrunk."""

AGING_SECONDS = 300.0
"""How long a job waits to have its priority raised by one."""

_log = structlog.get_logger(__name__)


class WaitsFor(StrEnum):
    """What a queued job waits for, as far as programs tell it apart."""

    CAPACITY = "capacity"
    """More workers than the cluster has room for."""
    WORKERS = "workers"
    """Workers that other jobs have."""
    PRIORITY = "priority"
    """Its turn: others come first."""


@dataclass(frozen=True)
class Wait:
    """Why a queued job waits, for programs and for people."""

    what: WaitsFor
    reason: str


@dataclass(frozen=True)
class Plan:
    """What is to be done, by job id."""

    starts: dict[str, int]
    """Which queued jobs start now, with how many workers."""
    shares: dict[str, int]
    """How many workers each running job is to have."""
    waits: dict[str, Wait]
    """Why each of the other queued jobs waits."""


def plan(queued: Sequence[Job], running: Sequence[Job], held: Mapping[str, int], capacity: int, now: datetime) -> Plan:
    """Decides, given how many workers jobs hold by id; those that end may hold some and be among neither."""
    free = capacity - sum(held.values())
    starts: dict[str, int] = {}
    shares = {job.id: min(held[job.id], job.spec.max_workers) for job in running}  # which may have become fewer
    waits: dict[str, Wait] = {}
    ahead = 0  # of those that wait for workers which others will give back
    for job in sorted(queued, key=lambda job: (-_priority(job, now), job.created)):
        fewest = job.spec.min_workers
        if fewest > capacity:
            reason = f"waits for {_workers(fewest)}; the cluster has room for {capacity}"
            waits[job.id] = Wait(WaitsFor.CAPACITY, reason)
        elif ahead:
            reason = f"waits behind {ahead} job{'s' if ahead > 1 else ''} in the queue"
            waits[job.id] = Wait(WaitsFor.PRIORITY, reason)
            ahead += 1
        elif fewest <= free:
            starts[job.id] = min(job.spec.workers, free)
            free -= starts[job.id]
        else:
            ahead = 1
            reason = f"waits for {_workers(fewest)}; {max(free, 0)} of {capacity} are free"
            waits[job.id] = Wait(WaitsFor.WORKERS, reason)
            for other in running:
                shares[other.id] = min(shares[other.id], other.spec.workers)
    if not ahead:
        for job in running:
            extra = min(max(job.spec.max_workers - shares[job.id], 0), max(free, 0))
            shares[job.id] += extra
            free -= extra
    return Plan(starts, shares, waits)


class Share:
    """How many workers a running job is to have, and has."""

    def __init__(self, workers: int, changed: Callable[[], None]) -> None:
        self.target = workers
        """What the scheduler wants; the one who runs the job follows."""
        self.held = workers
        self._changed = changed

    def settle(self, workers: int) -> None:
        """Says how many workers the job has now."""
        self.held = workers
        self._changed()


class Scheduler:
    """Starts queued jobs as soon as there is room, and shares out what is left."""

    def __init__(
        self,
        jobs: Jobs,
        capacity: Callable[[], int],
        run: Callable[[str, Share], None],
        want: Callable[[int], None] = lambda _workers: None,
    ) -> None:
        """`run` trains a job to its end, or until the service stops; it is called in a thread of the job's own.

        `want` is told how many workers all jobs together could use, for a cluster that can grow.
        """
        self._jobs = jobs
        self._capacity = capacity
        self._run = run
        self._want = want
        self._lock = threading.Lock()
        self._threads: dict[str, threading.Thread] = {}
        self._shares: dict[str, Share] = {}
        """What each thread holds: until it ends, even if its job has ended before."""
        self.waits: dict[str, Wait] = {}
        """Why each of the queued jobs waits, as of the last look."""
        self.capacity = 0
        """How many workers the cluster had room for then."""
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
        wait = self.waits.get(job_id)
        return wait.reason if wait else ""

    def _loop(self) -> None:
        while not self._stopping:
            self._changed.clear()
            try:
                self._follow_plan()
            except Exception:
                # Such as a cluster that doesn't answer. Nothing was started; the next round tries again.
                _log.exception("no jobs could be started")
            self._changed.wait(timeout=LOOK_SECONDS)

    def _follow_plan(self) -> None:
        self.capacity = capacity = self._capacity()
        with self._lock:
            jobs = self._jobs.all()
            queued = [job for job in jobs if isinstance(job.state, Queued) and job.id not in self._shares]
            running = [job for job in jobs if job.is_at_work and job.id in self._shares]
            self._want(sum(job.spec.max_workers for job in (*queued, *running)))
            # Both are taken: what a job has, and what it was promised.
            held = {job_id: max(share.held, share.target) for job_id, share in self._shares.items()}
            decided = plan(queued, running, held, capacity, datetime.now(UTC))
            self.waits = decided.waits
            for job_id, workers in decided.shares.items():
                self._shares[job_id].target = workers
            for job_id, workers in decided.starts.items():
                self._shares[job_id] = Share(workers, self._changed.set)
                self._threads[job_id] = threading.Thread(target=self._run_one, args=(job_id,), daemon=True)
                self._threads[job_id].start()

    def _run_one(self, job_id: str) -> None:
        try:
            self._run(job_id, self._shares[job_id])
        except Exception:
            _log.exception("job was left as it is; it goes on when the coordinator starts again", job=job_id)
        finally:
            with self._lock:
                del self._threads[job_id], self._shares[job_id]
            self._changed.set()


def _priority(job: Job, now: datetime) -> int:
    return job.spec.priority + int((now - job.created).total_seconds() / AGING_SECONDS)


def _workers(count: int) -> str:
    return f"{count} worker{'s' if count > 1 else ''}"
