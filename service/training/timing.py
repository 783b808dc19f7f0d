"""Where a step's time goes, counted as it is taken.

Histograms of counts by bucket: adding to one is a search among a dozen numbers, and whoever wants to read it does so
without the step waiting.
"""

import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from service.cluster.workers import CAUSES, Computed, Spent

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
        self._steps: deque[tuple[float, Spent, float, float]] = deque()
        """What is yet to be counted."""
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
        self._steps.append((asking, spent, average, optimizer))
        if len(self._steps) >= MOST_UNCOUNTED:
            self.count()

    def count(self) -> None:
        """Counts the steps that were taken down. May be called from any thread."""
        with self._counting:
            while self._steps:
                self._count(*self._steps.popleft())

    def _count(self, asking: float, spent: Spent, average: float, optimizer: float) -> None:
        phases = self.phases
        forward, backward = _longest(spent.computed)
        # Clocks of several processes that work at the same time: what they say is taken for at most what there was.
        left = max(asking - spent.split - spent.gather, 0.0)
        if (computing := forward + backward) > left:
            forward, backward, computing = forward * left / computing, backward * left / computing, left
        phases["split"].add(spent.split)
        phases["wait"].add(asking - spent.split - spent.gather - computing)
        phases["forward"].add(forward)
        phases["backward"].add(backward)
        phases["gather"].add(spent.gather)
        phases["average"].add(average)
        phases["optimizer"].add(optimizer)
        self.steps.add(asking + average + optimizer)
        self._add(spent)

    def computed(self, spent: Spent) -> None:
        """Counts what workers computed to validate, and what was exchanged for that."""
        with self._counting:
            self._add(spent)

    def _add(self, spent: Spent) -> None:
        self.exchanged_bytes += spent.bytes
        seconds = self.compute_seconds
        for each in spent.computed:
            if each.worker in seconds:
                seconds[each.worker] += each.seconds
            else:
                seconds = self.compute_seconds = {**seconds, each.worker: each.seconds}


def _longest(computed: Iterable[Computed]) -> tuple[float, float]:
    """The seconds forward and backward of the worker that computed longest for this step."""
    by_worker: dict[int, tuple[float, float]] = {}
    for each in computed:
        if not each.is_late:
            forward, backward = by_worker.get(each.worker, (0.0, 0.0))
            by_worker[each.worker] = (forward + each.forward, backward + each.backward)
    return max(by_worker.values(), key=sum, default=(0.0, 0.0))


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
