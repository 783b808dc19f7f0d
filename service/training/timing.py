"""Where a step's time goes, counted as it is taken.

Histograms of counts by bucket: adding to one is a search among a dozen numbers, and whoever wants to read it does so
without the step waiting.
"""

import statistics
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import add
from struct import Struct
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from service.cluster.workers import CAUSES, OF_ORDER, Spent

BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0)
"""Upper bounds in seconds: from a step of a small network to one that waits for a worker to come back."""

RECOVERY_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Upper bounds in seconds: from a worker that attaches anew to one whose machine had to be replaced."""

PHASES = ("split", "wait", "forward", "backward", "gather", "average", "optimizer")
"""What makes up a step: their seconds add up to its own.

split: orders out. forward, backward: those of the worker that took longest, since all wait for it. gather: the last
answers taken in. wait: what else passed until then. average: the sum over shards, and a look whether it is finite.
optimizer: the update, and the figures of the layers in a step in which they are looked at.
"""

MOST_UNCOUNTED = 10_000
"""Of more steps than these the trainer counts them itself."""

NOW_AND_THEN = ("validate", "checkpoint")
"""What happens between steps."""

OF_STEP = Struct("7d")
"""What is taken down of a step: five durations, the bytes that were exchanged, and how many bytes its orders are."""

_BOUNDS, _UNITS = np.array(BUCKETS), np.array([1.0, 1e-9, 1e-9, 1.0])
_pack, _MOST_BYTES = OF_STEP.pack, MOST_UNCOUNTED * OF_STEP.size

Numbers: TypeAlias = npt.NDArray[np.float64]


class Histogram:
    """How many durations there were by their length, and all of them added."""

    __slots__ = ("bounds", "counts", "seconds")

    def __init__(self, bounds: Sequence[float] = BUCKETS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """How many were at most as long as each bound, and longer than the one before; last those beyond all."""
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """Counts a duration."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.seconds += seconds

    def add_all(self, counts: Sequence[int], seconds: float) -> None:
        """Counts what was counted elsewhere: how many by their length, and all of them added."""
        self.counts = list(map(add, self.counts, counts))
        self.seconds += seconds


class Timing:
    """What a job's steps took, and what went through them. Written by the trainer alone, read by anyone.

    It begins anew with every trainer, as counters do that are read from outside.
    """

    def __init__(self) -> None:
        self.phases = {phase: Histogram() for phase in (*PHASES, *NOW_AND_THEN)}
        self.steps = Histogram()
        """Whole steps."""
        self.compute_seconds: dict[int, float] = {}
        """What each worker spent computing, by its number. Replaced as a whole when one comes that is new."""
        self.exchanged_bytes = 0
        """Parameters that workers were given to read, and gradients that they brought."""
        self.losses = dict.fromkeys(CAUSES, 0)
        """How often a worker was lost, by cause."""
        self.recoveries = Histogram(RECOVERY_BUCKETS)
        """From a worker's loss to its return."""
        self.checkpoint_time: float | None = None
        """When the newest checkpoint was written, in seconds since 1970; None before the first."""
        self.checkpoint_bytes: int | None = None
        """Its size."""
        self._steps, self._orders = bytearray(), bytearray()
        """What is yet to be counted."""
        self._lately: dict[int, tuple[float, float]] = {}
        """The seconds and the shards of each worker since somebody asked who lags."""
        self._counting = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """What was counted, for other processes to read."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    @property
    def seconds(self) -> dict[str, float]:
        """All seconds of each phase, as far as they are counted."""
        return {phase: histogram.seconds for phase, histogram in self.phases.items()}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Counts the time spent inside as a phase."""
        begin = time.perf_counter()
        yield
        self.phases[name].add(time.perf_counter() - begin)

    def step(self, asking: float, spent: Spent, average: float, optimizer: float) -> None:
        """Takes down a step: the seconds until all answers were there, what came to pass in them, and what followed.

        It is counted when somebody wants to read, so that the step doesn't wait for that.
        """
        split, gather, computed, exchanged, late = spent
        if late:
            self.computed(Spent(computed=late))
        self._orders += computed
        # Last, and at once: whoever counts takes it for complete.
        self._steps += _pack(asking, average, optimizer, split, gather, exchanged, len(computed))
        if len(self._steps) >= _MOST_BYTES:
            self.count()

    def count(self) -> None:
        """Counts the steps that were taken down. May be called from any thread."""
        with self._counting:
            if self._steps:
                self._count(np.frombuffer(_taken(self._steps, len(self._steps))).reshape(-1, OF_STEP.size // 8))

    def computed(self, spent: Spent) -> None:
        """Counts what workers computed for no step, and what was exchanged for that."""
        with self._counting:
            self._add(spent.exchanged, _orders(spent.computed))

    def straggler_ratio(self) -> float | None:
        """How far the slowest worker is behind: its mean time for a shard over the median's, since this was asked last.

        Of an even number the faster of the two in the middle is the median, so that one of two can be seen to lag.
        Where one of several does all of the short steps, nobody is behind. None with fewer than two workers.
        """
        if not self._lately:  # else others have counted just now, and the step needn't wait for it
            self.count()
        with self._counting:
            lately, self._lately = self._lately, {}
        means = [seconds / shards for seconds, shards in lately.values() if seconds > 0]
        return max(means) / statistics.median_low(means) if means and len(self.compute_seconds) > 1 else None

    def _count(self, steps: Numbers) -> None:
        """All at once, since the trainer can't go on meanwhile: in a loop it takes ten times as long."""
        asking, average, optimizer, split, gather, exchanged, size = steps.T
        orders = _orders(_taken(self._orders, int(size.sum())))
        of_step = np.repeat(np.arange(len(steps)), size.astype(np.intp) // OF_ORDER.size)
        forward, backward = _longest(orders, of_step, len(steps))
        # Clocks of several processes that work at the same time: what they say is taken for at most what there was.
        left, computing = np.maximum(asking - split - gather, 0.0), forward + backward
        share = np.divide(left, computing, out=np.ones_like(left), where=computing > left)
        forward, backward = forward * share, backward * share
        wait = asking - split - gather - np.minimum(computing, left)
        whole = asking + average + optimizer
        durations = np.stack([split, wait, forward, backward, gather, average, optimizer, whole])
        histograms = [*map(self.phases.__getitem__, PHASES), self.steps]
        for histogram, counts, seconds in zip(histograms, _by_bucket(durations), durations.sum(axis=1), strict=True):
            histogram.add_all(counts, float(seconds))
        for worker, (seconds, shards) in self._add(int(exchanged.sum()), orders).items():
            before = self._lately.get(worker, (0.0, 0.0))
            self._lately[worker] = before[0] + seconds, before[1] + shards

    def _add(self, exchanged: int, orders: Numbers) -> dict[int, tuple[float, float]]:
        """Adds up what was exchanged and computed. Returns the seconds and the shards of each worker."""
        self.exchanged_bytes += exchanged
        worker, forward, backward, shards = orders.T
        numbers = worker.astype(np.intp)
        sums = [np.bincount(numbers, weights).tolist() for weights in (forward + backward, shards)]
        found = {number: (seconds, done) for number, (seconds, done) in enumerate(zip(*sums, strict=True)) if done}
        known = self.compute_seconds
        self.compute_seconds = known | {worker: known.get(worker, 0.0) + own[0] for worker, own in found.items()}
        return found


def _taken(records: bytearray, size: int) -> bytearray:
    """Takes the oldest out."""
    taken = records[:size]
    del records[:size]
    return taken


def _orders(packed: bytes | bytearray) -> Numbers:
    """Of each: its worker, the seconds forward and backward, and its shards."""
    numbers: Numbers = np.frombuffer(packed, np.int64).reshape(-1, 4) * _UNITS
    return numbers


def _by_bucket(durations: Numbers) -> list[list[int]]:
    """How many of each row there are in each bucket."""
    rows, width = len(durations), len(BUCKETS) + 1
    place = _BOUNDS.searchsorted(durations) + width * np.arange(rows)[:, None]
    found: list[list[int]] = np.bincount(place.reshape(-1), minlength=rows * width).reshape(rows, width).tolist()
    return found


def _longest(orders: Numbers, of_step: npt.NDArray[np.intp], steps: int) -> Numbers:
    """Of every step the seconds forward and backward of the worker that computed longest for it: (2, steps)."""
    worker, forward, backward, _ = orders.T
    seats = 1 + int(worker.max(initial=0))
    place = of_step * seats + worker.astype(np.intp)
    sums = [np.bincount(place, each, steps * seats).reshape(steps, seats) for each in (forward, backward)]
    slowest = (sums[0] + sums[1]).argmax(axis=1)
    return np.stack([part[np.arange(steps), slowest] for part in sums])


class Throughput:
    """Samples a second over the last few seconds."""

    WINDOW_SECONDS = 3.0

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()

    def at(self, samples: int) -> float:
        """Notes how many samples there are by now, and returns the rate; 0 on the first call."""
        now = time.monotonic()
        self._marks.append((now, samples))
        while len(self._marks) > 2 and self._marks[0][0] < now - self.WINDOW_SECONDS:
            self._marks.popleft()
        since, before = self._marks[0]
        return max(samples - before, 0) / (now - since) if now > since else 0.0


class Anatomy:
    """The mean seconds of a step by phase, over the last few seconds."""

    WINDOW_SECONDS = 5.0

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int, dict[str, float]]] = deque()

    def at(self, steps: int, seconds: Mapping[str, float]) -> dict[str, float]:
        """Notes the seconds that all `steps` so far took, and returns the means; nothing before there are two marks."""
        now = time.monotonic()
        if self._marks and steps < self._marks[-1][1]:  # rolled back: those steps are taken again
            self._marks.clear()
        self._marks.append((now, steps, dict(seconds)))
        while len(self._marks) > 2 and self._marks[0][0] < now - self.WINDOW_SECONDS:
            self._marks.popleft()
        _, before, spent = self._marks[0]
        taken = steps - before
        return {phase: (total - spent[phase]) / taken for phase, total in seconds.items()} if taken else {}
