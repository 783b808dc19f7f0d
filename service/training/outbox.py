"""What a trainer has to tell, until the service has it.

The trainer puts events in and goes on; the service takes them out in batches, at its own pace, and says up to which it
has made them durable. What it hasn't yet is part of every checkpoint, so that a trainer that dies takes no event along.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from service.jobs.events import Event, Progress, Reported, StateChanged, WorkerJoined, WorkerLost


@dataclass(frozen=True)
class Posted:
    """An event with its number in the outbox, from 1."""

    number: int
    event: Event


class Outbox:
    """Events in order, and how far the steps have come."""

    def __init__(self) -> None:
        self.newest: tuple[int, float] = (0, 0.0)
        """How many steps were taken, and the loss of the last. Replaced after every step."""
        self.progress: Callable[[], Progress] = Progress
        """Says more of that; made when somebody asks, so that no step has to wait for it."""
        self._changed = threading.Condition()
        self._posted: list[Posted] = []
        self._count = 0
        self._closed = False

    def post(self, event: Event) -> None:
        """Adds an event."""
        with self._changed:
            self._count += 1
            self._posted.append(Posted(self._count, event))
            self._changed.notify_all()

    def take(self, acknowledged: int, timeout: float) -> list[Posted]:
        """Forgets the events up to a number, and returns the others.

        Waits for `timeout` seconds so that events come in batches, and their number has no bearing on how often the
        service writes to its disk; but not for longer than until one is urgent, or there will be no more.
        """
        with self._changed:
            self._posted = [posted for posted in self._posted if posted.number > acknowledged]
            self._changed.wait_for(lambda: self._closed or any(map(_is_urgent, self._posted)), timeout)
            return list(self._posted)

    def close(self) -> None:
        """Says that there will be no more events."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def unacknowledged(self) -> tuple[Reported, ...]:
        """What happened to the parameters that the service may not know yet."""
        with self._changed:
            return tuple(p.event for p in self._posted if isinstance(p.event, Reported))


def _is_urgent(posted: Posted) -> bool:
    """Whether it changes the state, or is something that a trainer which dies now takes along: the next one, which goes
    on from the last checkpoint, comes to the same epochs, but not to the same losses of workers.
    """
    return isinstance(posted.event, StateChanged | WorkerLost | WorkerJoined)
