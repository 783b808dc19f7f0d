"""What the trainer sleeps on while its workers work."""

import os
import threading
import time
from typing import Protocol

from worker.segment import Segment, semaphore, wait

LOOKING_SECONDS = 0.0005
"""How long to look out before going to sleep."""


class Bell(Protocol):
    """Wakes one sleeper as often as it was rung."""

    def ring(self) -> None:
        """Wakes it, from any thread."""

    def wait(self, seconds: float, *, looking: bool = False) -> None:
        """Sleeps until it rings, `seconds` at the most.

        With `looking` it looks out for a while before that, and lets whoever has something to do go first: a processor
        takes longer to wake from its sleep than a small network's shard takes.
        """


class SharedBell:
    """One that workers in other processes ring too, by the segment's semaphore."""

    def __init__(self, segment: Segment) -> None:
        self._semaphore = semaphore(segment.address, "done", make=True)

    def ring(self) -> None:
        self._semaphore.release()

    def wait(self, seconds: float, *, looking: bool = False) -> None:
        if looking:
            until = time.perf_counter() + LOOKING_SECONDS
            while not self._semaphore.value and time.perf_counter() < until:
                os.sched_yield()
        wait(self._semaphore, seconds)


class ThreadBell:
    """One that is rung in this process alone."""

    def __init__(self) -> None:
        self._semaphore = threading.Semaphore(0)

    def ring(self) -> None:
        self._semaphore.release()

    def wait(self, seconds: float, *, looking: bool = False) -> None:  # noqa: ARG002 - what takes long is asked for here
        self._semaphore.acquire(timeout=max(seconds, 0.0))
