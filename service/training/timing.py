"""Where a step's time goes, counted as it is taken.

A histogram of counts by bucket: adding to it is a search among a dozen numbers, and whoever wants to read it does so
without the step waiting.
"""

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0)
"""Upper bounds in seconds: from a step of a small network to one that waits for a worker to come back."""

PHASES = ("gather", "average", "optimizer", "validate", "checkpoint")
"""gather: parameters out, gradients back. average: the sum over shards. optimizer: the update. The other two happen
now and then."""


class Timing:
    """Seconds by phase. Written by the trainer alone, read by anyone."""

    def __init__(self) -> None:
        self.counts = {phase: [0] * (len(BUCKETS) + 1) for phase in PHASES}
        self.seconds = dict.fromkeys(PHASES, 0.0)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Counts the time spent inside."""
        begin = time.perf_counter()
        yield
        taken = time.perf_counter() - begin
        self.counts[name][bisect_left(BUCKETS, taken)] += 1
        self.seconds[name] += taken


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
        return (samples - before) / (now - since) if now > since else 0.0


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
