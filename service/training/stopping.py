"""When a job has stopped getting better, and may end before its last epoch.

Judged after every epoch from its numbers alone, and remembered in the training state: a job that was stopped and goes
on ends after the same epoch, with the same model.
"""

import math
from dataclasses import dataclass

from service.training.optimizers.ranges import require_count, require_zero_or_positive
from worker.gradient import Sums


@dataclass(frozen=True)
class Streak:
    """The least cost so far, and how many epochs in a row brought none that was less by enough."""

    least: float = math.inf
    epochs: int = 0

    def after(self, cost: float, min_delta: float) -> "Streak":
        """What one more epoch makes of it."""
        return Streak(cost) if cost < self.least - min_delta else Streak(self.least, self.epochs + 1)


@dataclass(frozen=True)
class EarlyStopping:
    """Ends a job after `patience` epochs in a row that were no better than the best one by more than `min_delta`.

    The model is then that of the best epoch, also where all epochs are taken (Prechelt 1998, "Early stopping - but
    when?").
    """

    patience: int = 5
    min_delta: float = 0.0
    score: str = ""
    """Which score of the held-out rows is to become large; without one their loss is to become small."""

    def __post_init__(self) -> None:
        require_count("patience", self.patience)
        require_zero_or_positive("min_delta", self.min_delta)

    def cost(self, held_out: Sums) -> float:
        """What is to become small: the loss, or minus the score."""
        return -held_out.scores[self.score] / held_out.count if self.score else held_out.mean_loss
