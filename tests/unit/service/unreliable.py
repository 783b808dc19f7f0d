"""Workers that are lost on cue: the seam to the cluster as it behaves on a bad day."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from service.cluster.cluster import Room
from service.cluster.local_cluster import LocalCluster, LocalTraining
from service.cluster.local_workers import LocalWorkers
from service.cluster.workers import Change, Computed, Joined, Lost, Spent, TooFewWorkers, computed, packed
from service.data.datasets import Dataset
from service.models.spreading import ask_nobody
from service.training.session import Broken, Gone, News, Order, Training
from worker.arrays import Array
from worker.blocks import Block, merge
from worker.gradient import Gradient
from worker.orders import Took
from worker.task import Computation, Data

REASON = "its process ended"


@dataclass
class UnreliableWorkers:
    """Computes shards as several workers would, and loses some of them in the calls of the script."""

    task: Computation
    data: Data
    count: int
    losses: Mapping[int, Sequence[int]] = field(default_factory=dict)
    """By number of the call: which workers are lost in it, after they were given their shards."""
    comes_back: Callable[[], bool] = lambda: True
    """Whether a wait ends with the workers back."""
    fewest: int = 1
    calls: int = 0

    def __post_init__(self) -> None:
        self._alive = list(range(self.count))
        self._changes: list[Change] = []
        self._computed: list[Computed] = []
        self._params: Array = np.empty(self.task.network.size, np.float32)
        self._slots = np.empty((self.task.shards.shards, self.task.network.dense), np.float32)

    @property
    def params(self) -> Array:
        return self._params

    def gradients(self, step: int, *, look: bool = False) -> Sequence[Block]:
        def compute(shard: int) -> Gradient:
            return self.task.gradient(self.data, self._params, step, shard, self._slots[shard], look=look)

        return self._compute(compute)

    def evaluate(self) -> Sequence[Block]:
        def compute(shard: int) -> Gradient:
            return Gradient(self._params[:0], self.task.evaluate(self.data, self._params, shard))

        return self._compute(compute)

    def spent(self) -> Spent:
        orders, self._computed = self._computed, []
        return Spent(0.0, 0.0, packed(*orders), 1000 * len(orders))

    def ready(self) -> int:
        return len(self._alive)

    def shared(self) -> int:
        return len(self._alive) // 2

    def changes(self) -> Sequence[Change]:
        changes, self._changes = self._changes, []
        return changes

    def wait(self, timeout: float) -> bool:
        if self.ready() >= self.fewest:
            return True
        if not self.comes_back():
            threading.Event().wait(timeout)
            return False
        self._admit()
        return True

    def close(self) -> None:
        self._alive.clear()

    def _admit(self) -> None:
        for worker in sorted(set(range(self.count)) - set(self._alive)):
            self._alive.append(worker)
            self._changes.append(Joined(worker, "ray_objects"))

    def _compute(self, compute: Callable[[int], Gradient]) -> Sequence[Block]:
        lost = set(self.losses.get(self.calls, ()))
        self.calls += 1
        self._slots[:] = np.nan  # what was answered before is the caller's no more
        if self.ready() < self.fewest:
            raise TooFewWorkers
        self._admit()
        shards = self.task.shards.shards
        done: set[int] = set()
        results: list[Block] = []
        while missing := [shard for shard in range(shards) if shard not in done]:
            if not self._alive:
                raise TooFewWorkers
            share = len(self._alive)
            # The last worker answers first: the order of arrival must not matter.
            for place, worker in reversed(list(enumerate(self._alive))):
                if worker in lost:
                    self._alive.remove(worker)
                    self._changes.append(Lost(worker, REASON))
                else:
                    part = missing[place::share]
                    results += merge([Block(shard, 1, compute(shard)) for shard in part], shards)
                    # What it says it took: shards of worker 0 take a second forward, those of worker 1 two, and so on.
                    took = Took((1.0 + worker) * len(part), 0.5 * len(part), len(part))
                    self._computed.append(computed(worker, took))
                    done.update(part)
        return results


@dataclass
class GatedCluster:
    """A cluster whose steps wait until they are let through, so that a test decides how far a job is."""

    slots: int = 4
    gate: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)
    """Set once a step waits at the gate."""
    tickets: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    lent: list[int] = field(default_factory=list)
    """With how many workers trainers were started, and how many they were given later."""

    def let_through(self, steps: int) -> None:
        """Lets some steps through, whosever they are."""
        self.tickets.release(steps)

    def room(self) -> Room:
        return LocalCluster(self.slots).room()

    def want(self, workers: int) -> None:
        """It has what it has."""

    def missing(self) -> str:
        return ""

    help_with = staticmethod(ask_nobody)

    @contextmanager
    def train(self, order: Order, dataset: Dataset, data: Data, workers: int) -> Iterator[Training]:  # noqa: ARG002
        self.lent.append(workers)
        training = GatedTraining(
            order, GatedWorkers(order.task, data, workers, self.gate, self.entered, self.tickets), self.lent
        )
        try:
            yield training
        finally:
            training.halt()


class GatedTraining(LocalTraining):
    """Notes how many workers it is given."""

    def __init__(self, order: Order, workers: LocalWorkers, lent: list[int]) -> None:
        super().__init__(order, workers)
        self._lent = lent

    def lend(self, workers: int) -> None:
        self._lent.append(workers)
        super().lend(workers)


class GatedWorkers(LocalWorkers):
    """Workers that compute a gradient only while the gate is open, or for a ticket."""

    def __init__(
        self,
        task: Computation,
        data: Data,
        count: int,
        gate: threading.Event,
        entered: threading.Event,
        tickets: threading.Semaphore | None = None,
    ) -> None:
        super().__init__(task, data, count)
        self._gate = gate
        self._entered = entered
        self._tickets = tickets or threading.Semaphore(0)

    def gradients(self, step: int, *, look: bool = False) -> Sequence[Block]:
        self._entered.set()
        deadline = time.monotonic() + 30
        while not self._gate.is_set() and not self._tickets.acquire(timeout=0.01):
            assert time.monotonic() < deadline
        return super().gradients(step, look=look)


@dataclass
class DyingCluster:
    """A cluster whose trainers die, the first ones at least, and take along what they had not told yet."""

    steps: Sequence[int]
    """How many steps each of the first trainers takes before it dies."""
    started: int = 0

    def room(self) -> Room:
        return LocalCluster().room()

    def want(self, workers: int) -> None:
        """It has what it has."""

    def missing(self) -> str:
        return ""

    help_with = staticmethod(ask_nobody)

    @contextmanager
    def train(self, order: Order, dataset: Dataset, data: Data, workers: int) -> Iterator[Training]:  # noqa: ARG002
        dies = self.steps[self.started] if self.started < len(self.steps) else None
        self.started += 1
        training: Training = DyingTraining(order, DyingWorkers(order.task, data, workers, dies))
        try:
            yield training
        finally:
            training.halt()


class DyingWorkers(LocalWorkers):
    """Takes a number of steps, and then the whole process along."""

    def __init__(self, task: Computation, data: Data, count: int, steps: int | None) -> None:
        super().__init__(task, data, count)
        self._left = steps

    def gradients(self, step: int, *, look: bool = False) -> Sequence[Block]:
        if self._left == 0:
            raise SystemError("dies here")
        if self._left is not None:
            self._left -= 1
        return super().gradients(step, look=look)


class DyingTraining(LocalTraining):
    """Tells nothing of what it still had to tell when it died."""

    def news(self, acknowledged: int, timeout: float) -> News:
        news = super().news(acknowledged, timeout)
        if isinstance(news.outcome, Broken):
            return News([], news.progress, news.timing, Gone("its trainer was lost"))
        return news
