"""What the trainer sleeps on while its workers work."""

import threading
from typing import Protocol

from worker.segment import Segment, semaphore, wait


class Bell(Protocol):
    """Wakes one sleeper as often as it was rung."""

    def ring(self) -> None:
        """Wakes it, from any thread."""

    def wait(self, seconds: float) -> None:
        """Sleeps until it rings, `seconds` at the most."""


class SharedBell:
    """One that workers in other processes ring too, by the segment's semaphore."""

    def __init__(self, segment: Segment) -> None:
        self._semaphore = semaphore(segment.address, "done", make=True)

    def ring(self) -> None:
        self._semaphore.release()

    def wait(self, seconds: float) -> None:
        wait(self._semaphore, seconds)


class ThreadBell:
    """One that is rung in this process alone."""

    def __init__(self) -> None:
        self._semaphore = threading.Semaphore(0)

    def ring(self) -> None:
        self._semaphore.release()

    def wait(self, seconds: float) -> None:
        self._semaphore.acquire(timeout=max(seconds, 0.0))
