"""Hinge losses: right by a margin is good enough."""

from dataclasses import dataclass
from enum import Enum

import numpy as np

from worker.arrays import Array, Shape
from worker.errors import TargetMismatch
from worker.losses.loss import Judged, TargetColumn
from worker.scores import ACCURACY, BINARY_ACCURACY, Scores, binary_scores, class_scores


class Rivals(Enum):
    """Which of the wrong classes the right one must keep its distance from."""

    STRONGEST = "STRONGEST"
    """The one with the largest output: max(0, 1 + max over j != y of x[j] - x[y]) (Crammer and Singer 2001)."""
    ALL = "ALL"
    """Every one: the sum over j != y of max(0, 1 + x[j] - x[y]) (Weston and Watkins 1999)."""


@dataclass(frozen=True)
class Hinge:
    """With one output: max(0, 1 - t x), for t = -1 or 1; targets of 0 are taken for -1. With several: see Rivals.

    At the edge of the margin, where there is no derivative, the gradient is 0.
    """

    rivals: Rivals = Rivals.STRONGEST

    def training_scores(self, output_shape: Shape) -> Scores:
        return BINARY_ACCURACY if output_shape == (1,) else ACCURACY

    def scores(self, output_shape: Shape) -> Scores:
        return binary_scores(1) if output_shape == (1,) else class_scores(output_shape)

    def check(self, output_shape: Shape, column: TargetColumn) -> None:
        if len(output_shape) != 1 or output_shape[0] < 1:
            raise TargetMismatch(
                f"the hinge loss needs one output a class, or one for two classes, but the network ends in "
                f"{output_shape}"
            )
        (classes,) = output_shape
        if classes == 1:
            if column.row_shape not in ((), (1,)) or not {column.min, column.max} <= {-1.0, 0.0, 1.0}:
                raise TargetMismatch(
                    f"has rows of shape {column.row_shape} from {column.min:g} to {column.max:g}; the hinge loss with "
                    "one output needs one number a row, 0 or 1, or -1 or 1"
                )
            return
        if not column.integral or column.row_shape != ():
            raise TargetMismatch("the hinge loss needs a column of integers, one class number a row")
        if column.min < 0 or column.max >= classes:
            raise TargetMismatch(
                f"has classes from {column.min:g} to {column.max:g}, but the network ends in {classes} units, "
                f"which is for classes 0 to {classes - 1}"
            )

    def __call__(self, outputs: Array, targets: Array, weights: Array | None = None) -> Judged:
        loss, gradient = (
            _two_classes(outputs, targets) if outputs.shape[1] == 1 else _classes(outputs, targets, self.rivals)
        )
        if weights is None:
            return Judged(float(loss.sum(dtype=np.float64)), gradient, len(outputs))
        gradient *= weights[:, np.newaxis]
        return Judged(float(np.dot(loss, weights)), gradient, float(weights.sum(dtype=np.float64)))


def _two_classes(outputs: Array, targets: Array) -> tuple[Array, Array]:
    """The loss of each row, and its gradient."""
    t = np.where(targets.reshape(outputs.shape) > 0.5, 1, -1).astype(outputs.dtype)
    short = np.maximum(1 - t * outputs, 0)
    return short[:, 0], -t * (short > 0)


def _classes(outputs: Array, targets: Array, rivals: Rivals) -> tuple[Array, Array]:
    """The loss of each row, and its gradient."""
    every, y = np.arange(len(outputs)), targets.astype(np.intp, copy=False)
    short = 1 + outputs - outputs[every, y][:, np.newaxis]
    short[every, y] = 0
    np.maximum(short, 0, out=short)
    if rivals is Rivals.STRONGEST:
        strongest = short.argmax(axis=1)
        loss = short[every, strongest]
        gradient = np.zeros_like(outputs)
        gradient[every, strongest] = loss > 0
        gradient[every, y] -= loss > 0
        return loss, gradient
    gradient = (short > 0).astype(outputs.dtype)
    gradient[every, y] = -gradient.sum(axis=1)
    return short.sum(axis=1), gradient
