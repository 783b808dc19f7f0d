"""Workers that are lost on cue: the pool's seam as a cluster behaves on a bad day."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from service.cluster.local_pool import LocalPool
from service.cluster.pool import Change, Joined, Lost, NoWorkers, Workers
from worker.arrays import Array
from worker.gradient import Gradient, Sums
from worker.task import Data, Task

T = TypeVar("T", Gradient, Sums)

REASON = "its process ended"


@dataclass
class UnreliableWorkers:
    """Computes shards as several workers would, and loses some of them in the calls of the script."""

    task: Task
    data: Data
    count: int
    losses: Mapping[int, Sequence[int]] = field(default_factory=dict)
    """By number of the call: which workers are lost in it, after they were given their shards."""
    comes_back: Callable[[], bool] = lambda: True
    """Whether a wait ends with the workers back."""
    calls: int = 0

    def __post_init__(self) -> None:
        self._alive = list(range(self.count))
        self._changes: list[Change] = []

    def gradients(self, params: Array, step: int) -> Sequence[Gradient]:
        return self._compute(lambda shard: self.task.gradient(self.data, params, step, shard))

    def evaluate(self, params: Array) -> Sequence[Sums]:
        return self._compute(lambda shard: self.task.evaluate(self.data, params, shard))

    def ready(self) -> int:
        return len(self._alive)

    def changes(self) -> Sequence[Change]:
        changes, self._changes = self._changes, []
        return changes

    def wait(self, timeout: float) -> bool:
        if not self.comes_back():
            threading.Event().wait(timeout)
            return False
        self._admit()
        return True

    def _admit(self) -> None:
        for worker in sorted(set(range(self.count)) - set(self._alive)):
            self._alive.append(worker)
            self._changes.append(Joined(worker))

    def _compute(self, compute: Callable[[int], T]) -> Sequence[T]:
        lost = set(self.losses.get(self.calls, ()))
        self.calls += 1
        if self._alive:
            self._admit()
        results: dict[int, T] = {}
        while missing := [shard for shard in range(self.task.shards.shards) if shard not in results]:
            if not self._alive:
                raise NoWorkers
            share = len(self._alive)
            # The last worker answers first: the order of arrival must not matter.
            for place, worker in reversed(list(enumerate(self._alive))):
                if worker in lost:
                    self._alive.remove(worker)
                    self._changes.append(Lost(worker, REASON))
                else:
                    results.update({shard: compute(shard) for shard in missing[place::share]})
        return [results[shard] for shard in range(self.task.shards.shards)]


@dataclass
class GatedPool:
    """A pool whose steps wait until they are let through, so that a test decides how far a job is."""

    slots: int = 4
    gate: threading.Event = field(default_factory=threading.Event)
    """Open, it lets every step through."""
    entered: threading.Event = field(default_factory=threading.Event)
    """Set once a step waits at the gate."""
    tickets: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def let_through(self, steps: int) -> None:
        """Lets some steps through, whosever they are."""
        self.tickets.release(steps)

    def capacity(self) -> int:
        return self.slots

    @contextmanager
    def open(self, task: Task, data: Data, workers: int) -> Iterator[Workers]:
        with LocalPool(self.slots).open(task, data, workers) as inner:
            yield GatedWorkers(inner, self)


@dataclass
class GatedWorkers:
    """Workers that compute a gradient only once their pool lets them."""

    inner: Workers
    pool: GatedPool

    def gradients(self, params: Array, step: int) -> Sequence[Gradient]:
        self.pool.entered.set()
        while not self.pool.gate.is_set() and not self.pool.tickets.acquire(timeout=0.01):
            pass
        return self.inner.gradients(params, step)

    def evaluate(self, params: Array) -> Sequence[Sums]:
        return self.inner.evaluate(params)

    def ready(self) -> int:
        return self.inner.ready()

    def changes(self) -> Sequence[Change]:
        return self.inner.changes()

    def wait(self, timeout: float) -> bool:
        return self.inner.wait(timeout)
