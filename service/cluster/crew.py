"""How many of a job's workers share a step: as few as make it fastest, which is found out by trying.

Where a shard takes less time than waking a process does, two workers are slower than one that computes both shards. It
makes no difference to the numbers, since shards are added in their own order, whoever computed them.
"""

import time
from statistics import median

SHORT_SECONDS = 0.0005
"""Of steps that take longer nothing is tried: waking a worker takes a small part of them."""

TRIAL_STEPS = 48
"""How many steps are taken with each number of workers."""

SETTLING_STEPS = 16
"""How many of those don't count: the processors find out who is at work now."""

HOLD_SECONDS = 2.0
"""How long what was found holds. Then it is tried anew, since others may be on the same processors by then."""

AGAIN_SECONDS = 0.1
"""When it is tried anew to be sure, where another number was faster. Others may have had the processors just then."""


class Crew:
    """Says how many workers share the next step, and is told how long it took."""

    def __init__(self, workers: int) -> None:
        """Of so many there are."""
        self.size = workers
        """How many share the next step."""
        self._workers = workers
        self._taken: list[float] = []
        self._best: tuple[float, int] | None = None
        """The seconds of a step with the best number so far, and that number; None while there was no trial."""
        self._hold_until = 0.0
        self._used: int | None = None
        """The number that steps are shared by between trials."""
        self._seems: int | None = None
        """Another one that the last trial found faster, and that is yet to be found so again."""

    def took(self, seconds: float) -> None:
        """Learns how long a step of `size` workers took."""
        if self._workers == 1 or (self._hold_until and time.monotonic() < self._hold_until):
            return
        if self._hold_until:
            self._begin()
            return
        self._taken.append(seconds)
        if len(self._taken) == TRIAL_STEPS:
            self._judge(median(self._taken[SETTLING_STEPS:]))

    def _begin(self) -> None:
        self.size, self._best, self._hold_until = self._workers, None, 0.0

    def _judge(self, seconds: float) -> None:
        """Ends a trial: half as many are next, as long as fewer were better."""
        self._taken.clear()
        is_better = self._best is None or seconds < self._best[0]
        if is_better:
            self._best = seconds, self.size
        if is_better and self.size > 1 and seconds < SHORT_SECONDS:
            self.size //= 2
            return
        assert self._best is not None  # noqa: S101 - this trial or one before it
        found = self._best[1]
        is_sure = self._used in (None, found) or self._seems == found
        self._seems = None if is_sure else found
        if is_sure or self._used is None:
            self._used = found
        self.size = self._used
        self._hold_until = time.monotonic() + (HOLD_SECONDS if is_sure else AGAIN_SECONDS)
