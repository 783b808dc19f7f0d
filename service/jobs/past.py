"""What a job remembers of its events to be judged by: never more than this, however long it trains."""

from dataclasses import dataclass, replace

from service.jobs.events import EpochCompleted, Event, RolledBack
from service.jobs.health import HealthSampled

MOST_LOOKS, MOST_EPOCHS = 5, 10
"""How many of the newest looks and epochs a job remembers, to be judged by."""


@dataclass(frozen=True)
class Past:
    """What a job's diagnoses follow from: never more of its events than this, however long it trains."""

    looks: tuple[HealthSampled, ...] = ()
    epochs: tuple[EpochCompleted, ...] = ()
    first: EpochCompleted | None = None
    lowest: EpochCompleted | None = None
    """The epoch with the lowest training loss."""
    best: EpochCompleted | None = None
    """The one with the lowest validation loss."""

    def after(self, event: Event) -> "Past":
        """What is remembered once an event has happened."""
        match event:
            case HealthSampled():
                return replace(self, looks=(*self.looks, event)[-MOST_LOOKS:])
            case EpochCompleted():
                return Past(
                    self.looks,
                    (*self.epochs, event)[-MOST_EPOCHS:],
                    self.first or event,
                    event if self.lowest is None or event.training_loss < self.lowest.training_loss else self.lowest,
                    self._best(event),
                )
            case RolledBack(step=step):  # what was seen after that step is undone
                return replace(self, looks=tuple(look for look in self.looks if look.step <= step))
            case _:
                return self

    def _best(self, epoch: EpochCompleted) -> EpochCompleted | None:
        best = self.best.validation_loss if self.best else None
        loss = epoch.validation_loss
        return epoch if loss is not None and (best is None or loss < best) else self.best
