"""When a job has stopped getting better, and may end before its last epoch.

Judged after every epoch from its numbers alone, and remembered in the training state: a job that was stopped and goes
on ends after the same epoch, with the same model.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from service.training.optimizers.ranges import require_count, require_zero_or_positive
from worker.scores import COSTS


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
    """Which score of the held-out rows is to become large, or small if it is an error; by default their loss is to."""

    def __post_init__(self) -> None:
        require_count("patience", self.patience)
        require_zero_or_positive("min_delta", self.min_delta)

    def cost(self, loss: float, scores: Mapping[str, float]) -> float:
        """What is to become small: the loss, an error, or minus a score. Infinite where there is no such score."""
        if not self.score:
            return loss
        sign = 1 if self.score in COSTS else -1
        return sign * scores.get(self.score, sign * math.inf)
