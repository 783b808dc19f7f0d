"""Mini-batches that come while a job runs: what has come, and what became of it.

A client sends them, the trainer waits for the next one, and workers ask for that of a step. Nothing is kept here for
long: what the trainer's death takes along the client sends again, since it keeps what no checkpoint has yet.
"""

import threading
from dataclasses import dataclass, replace
from typing import Any, Protocol

MOST_UNANSWERED = 8
"""How many batches a client may have sent that are not answered yet; so many answers are part of every checkpoint."""


@dataclass(frozen=True)
class Taken:
    """A step that was made of a batch."""

    step: int
    """Its number, from 1."""
    loss: float
    """The mean loss over its rows, before the update."""
    gradient_norm: float
    """The length of the mean gradient."""


@dataclass(frozen=True)
class Answers:
    """How far a job got with what was sent to it."""

    step: int
    """The steps taken."""
    durable: int
    """Those of them that a checkpoint has."""
    taken: tuple[Taken, ...]
    """The newest of them, MOST_UNANSWERED at the most."""
    waiting: int = 0
    """How many batches have come for which it is not time yet."""


class TrainerGone(Exception):
    """The trainer has ended, or is lost."""


class Silent(Exception):
    """The job's client has sent nothing for long; the job can go on from its last checkpoint."""


class Feed(Protocol):
    """A trainer, as one sees it who sends batches to it. Every method may raise TrainerGone."""

    def put(self, step: int, batch: Any) -> None:
        """Hands over the batch of a step, counted from 0."""

    def finish(self, steps: int) -> None:
        """Has the job end after so many steps."""

    def answers(self, after: int, timeout: float) -> Answers | None:
        """How far it got, once it has taken more than `after` steps, or after `timeout` seconds.

        None if the trainer isn't ready yet.
        """


class Arrivals:
    """Implements Feed beside the trainer. May be used from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._batches: dict[int, Any] = {}
        """By step, counted from 0: those to come, and a few that a slow worker may still ask for."""
        self._last: int | None = None
        self._answers: Answers | None = None
        self._is_closed = False

    def put(self, step: int, batch: Any) -> None:
        with self._changed:
            if self._is_closed:
                raise TrainerGone
            if self._answers is None or step >= self._answers.step:
                self._batches[step] = batch
                self._changed.notify_all()

    def finish(self, steps: int) -> None:
        with self._changed:
            if self._is_closed:
                raise TrainerGone
            self._last = steps
            self._changed.notify_all()

    def answers(self, after: int, timeout: float) -> Answers | None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._step > after, timeout)
            if self._is_closed and self._step <= after:
                raise TrainerGone
            waiting = sum(number >= self._step for number in self._batches)
            return self._answers and replace(self._answers, waiting=waiting)

    def batch(self, step: int) -> Any:
        """What came for a step, for a worker. Raises KeyError if it is long over."""
        with self._changed:
            return self._batches[step]

    # The trainer's side

    def wait(self, step: int, timeout: float) -> bool:
        """Waits until there is a batch for a step, counted from 0, or it is clear that there will be none."""
        with self._changed:
            return self._changed.wait_for(lambda: step in self._batches or self._last == step, timeout)

    def is_over(self, step: int) -> bool:
        """Whether the job is to end after so many steps."""
        with self._changed:
            return self._last == step

    def tell(self, taken: tuple[Taken, ...], step: int, durable: int) -> None:
        """Says how far the trainer got, and forgets what no worker needs any more."""
        with self._changed:
            for old in [number for number in self._batches if number < step - MOST_UNANSWERED]:
                del self._batches[old]
            self._answers = Answers(step, durable, taken)
            self._changed.notify_all()

    def close(self) -> None:
        """Says that the trainer has ended."""
        with self._changed:
            self._is_closed = True
            self._batches.clear()
            self._changed.notify_all()

    @property
    def _step(self) -> int:
        return -1 if self._answers is None else self._answers.step
