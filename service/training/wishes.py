"""What a trainer is asked to do otherwise while it is at work: so far, to take another learning rate.

The trainer looks between two steps, and tells from which step on it did so. That makes the change part of the job's
story: whoever goes through the same steps again, after a crash or a roll-back, changes at the very same one.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from service.jobs.events import LearningRateChanged, RateAsked, Reported


@dataclass
class Wishes:
    """Written by those who ask, at any time; read by the trainer."""

    held: tuple[LearningRateChanged, ...] = ()
    """The changes that the job's events tell of, when the trainer begins."""
    rate: RateAsked | None = None
    """The newest wish."""

    def due(self, step: int, rates: tuple[LearningRateChanged, ...]) -> LearningRateChanged | None:
        """The change to make before a step, given those made already; None if there is no new wish."""
        asked = self.rate
        if asked is None or (rates and asked.number <= rates[-1].asked):
            return None
        return LearningRateChanged(step, asked.learning_rate, asked.number)


def known_rates(
    held: Iterable[LearningRateChanged], unacknowledged: Iterable[Reported]
) -> tuple[LearningRateChanged, ...]:
    """All changes made before: those that the service knows, and those that a checkpoint tells of beyond them."""
    told = [event for event in unacknowledged if isinstance(event, LearningRateChanged)]
    return tuple(sorted({change.asked: change for change in (*told, *held)}.values(), key=lambda change: change.asked))
