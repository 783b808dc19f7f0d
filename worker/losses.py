"""What the training minimises.

A loss takes the network's outputs as they are (logits, not probabilities) and returns the *sum* over rows with its
gradient. Dividing by the number of rows happens once, after the sums of all shards are added.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np

from worker.arrays import Array, Shape
from worker.errors import TargetMismatch
from worker.scores import correct


@dataclass(frozen=True)
class TargetColumn:
    """What is known of a target column before any row is read."""

    integral: bool
    row_shape: Shape
    min: float
    max: float


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

    @property
    def scores(self) -> Mapping[str, Callable[[Array, Array], float]]:
        """The scores that mean something with this loss: sums over rows, by name."""

    def check(self, output_shape: Shape, column: TargetColumn) -> None:
        """Raises TargetMismatch, saying what would be right, if such targets can't be held against such outputs."""

    def __call__(self, outputs: Array, targets: Array, weights: Array | None = None) -> Judged:
        """Judges outputs (rows, ...) by targets (rows, ...), each row counting as `weights` (rows,) say, or else 1."""


@dataclass(frozen=True)
class SoftmaxCrossEntropy:
    """-log softmax(logits)[class], for logits (rows, classes) and integer classes (rows,).

    With p = softmax(logits) its gradient is p, less 1 at the class (Bishop 2006, eq. 4.109). Shifting by the largest
    logit keeps exp within range and changes nothing.
    """

    @property
    def scores(self) -> Mapping[str, Callable[[Array, Array], float]]:
        return {"accuracy": correct}

    def check(self, output_shape: Shape, column: TargetColumn) -> None:
        if len(output_shape) != 1 or output_shape[0] < 2:
            raise TargetMismatch(
                f"softmax cross-entropy needs one logit a class, at least 2, but the network ends in {output_shape}"
            )
        if not column.integral or column.row_shape != ():
            raise TargetMismatch("softmax cross-entropy needs a column of integers, one class number a row")
        classes = output_shape[0]
        if column.min < 0 or column.max >= classes:
            raise TargetMismatch(
                f"has classes from {column.min:g} to {column.max:g}, but the network ends in {classes} units, "
                f"which is for classes 0 to {classes - 1}"
            )

    def __call__(self, outputs: Array, targets: Array, weights: Array | None = None) -> Judged:
        count, classes = outputs.shape
        gradient = outputs - np.maximum.reduce(outputs, axis=1, keepdims=True)
        at_target = targets.astype(np.intp, copy=False) + np.arange(0, count * classes, classes)
        flat = gradient.reshape(-1)
        of_target = flat.take(at_target)
        np.exp(gradient, out=gradient)
        sums = np.add.reduce(gradient, axis=1, keepdims=True)
        gradient /= sums
        flat[at_target] -= 1
        np.log(sums, out=sums)
        if weights is None:
            loss = np.add.reduce(sums, axis=None, dtype=np.float64) - np.add.reduce(of_target, dtype=np.float64)
            return Judged(float(loss), gradient, count)
        gradient *= weights[:, np.newaxis]
        return Judged(float(np.dot(sums[:, 0] - of_target, weights)), gradient, float(weights.sum(dtype=np.float64)))


@dataclass(frozen=True)
class MeanSquaredError:
    """The mean over a row's elements of (output - target)^2; gradient 2 (output - target) / elements."""

    @property
    def scores(self) -> Mapping[str, Callable[[Array, Array], float]]:
        return {}

    def check(self, output_shape: Shape, column: TargetColumn) -> None:
        # A column of single numbers is what a network with one output predicts.
        if output_shape not in (column.row_shape, (*column.row_shape, 1)):
            raise TargetMismatch(
                f"has rows of shape {column.row_shape}, but the network ends in {output_shape}; "
                "mean squared error needs the same shape"
            )

    def __call__(self, outputs: Array, targets: Array, weights: Array | None = None) -> Judged:
        difference = outputs - targets.reshape(outputs.shape).astype(outputs.dtype, copy=False)
        elements = int(np.prod(outputs.shape[1:]))
        gradient = difference * np.asarray(2 / elements, outputs.dtype)
        if weights is None:
            loss = np.square(difference).sum(dtype=np.float64) / elements
            return Judged(float(loss), gradient, len(outputs))
        of_row = np.square(difference).reshape(len(outputs), -1).mean(axis=1)
        gradient *= weights.reshape(-1, *[1] * (outputs.ndim - 1))
        return Judged(float(np.dot(of_row, weights)), gradient, float(weights.sum(dtype=np.float64)))


LOSSES: Mapping[str, type[Loss]] = MappingProxyType(
    {"softmax_cross_entropy": SoftmaxCrossEntropy, "mean_squared_error": MeanSquaredError}
)
