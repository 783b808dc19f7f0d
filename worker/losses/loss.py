"""What a loss is.

A loss takes the network's outputs as they are (logits, not probabilities) and returns the *sum* over rows with its
gradient. Dividing by what the rows weigh happens once, after the sums of all shards are added.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from worker.arrays import Array, Shape
from worker.scores import Scores


@dataclass(frozen=True)
class TargetColumn:
    """What is known of a target column before any row is read."""

    integral: bool
    row_shape: Shape
    min: float
    max: float
    missing: tuple[int, ...] = ()
    """Whole numbers between 0 and `max` that no row has, as far as that is known."""


class Judged(NamedTuple):
    """What a loss says of some rows."""

    loss: float
    """Summed over the rows, each times its weight."""
    gradient: Array
    """Of that sum, with respect to the outputs."""
    weight: float
    """What the sum is divided by for the mean, once those of all shards are added."""


class Loss(Protocol):
    """A function of outputs and targets. Implementations are frozen dataclasses of hyper-parameters."""

    def training_scores(self, output_shape: Shape) -> Scores:
        """The scores that are taken in every step, and so must cost next to nothing."""

    def scores(self, output_shape: Shape) -> Scores:
        """The scores that mean something with this loss, taken of held-out rows."""

    def check(self, output_shape: Shape, column: TargetColumn) -> None:
        """Raises TargetMismatch, saying what would be right, if such targets can't be held against such outputs.

        Raises InvalidValue if it is the loss's own field that doesn't fit them.
        """

    def __call__(self, outputs: Array, targets: Array, weights: Array | None = None) -> Judged:
        """Judges outputs (rows, ...) by targets (rows, ...), each row counting as `weights` (rows,) say, or else 1.

        Of padded sequences they are (rows, time), and 0 where a place is no part of its row.
        """
