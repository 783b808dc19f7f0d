"""Cross-entropy for yes or no: one question a row, or several that don't exclude each other."""

import math
from dataclasses import dataclass

import numpy as np

from worker.arrays import Array, Shape
from worker.errors import InvalidValue, TargetMismatch
from worker.losses.differences import check_same_shape, mean_of_elements
from worker.losses.loss import Judged, TargetColumn
from worker.scores import BINARY_ACCURACY, Scores, binary_scores


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """The mean over a row's elements of -w t log p - (1 - t) log (1 - p), p = 1 / (1 + exp(-logit)).

    t is the target, 0 or 1 or a probability, and w = positive_weight. In terms of softplus(a) = log (1 + exp(a)), which
    neither overflows nor loses small numbers, it is w t softplus(-logit) + (1 - t) softplus(logit); the gradient is
    (1 - t) p - w t (1 - p).
    """

    positive_weight: float = 1.0
    """How much a 1 counts, beside a 0. The mean is divided by the number of rows all the same, as in PyTorch."""
    label_smoothing: float = 0.0
    """The share s of the target that is spread over both answers: t becomes (1 - s) t + s / 2."""

    def __post_init__(self) -> None:
        if not 1e-6 <= self.positive_weight <= 1e6:
            raise InvalidValue("positive_weight", f"is {self.positive_weight:g}; must be 1e-6 to 1e6")
        if not 0 <= self.label_smoothing < 1:
            raise InvalidValue("label_smoothing", f"is {self.label_smoothing:g}; must be 0 up to, but not including, 1")

    def training_scores(self, output_shape: Shape) -> Scores:  # noqa: ARG002 - they are the same for all
        return BINARY_ACCURACY

    def scores(self, output_shape: Shape) -> Scores:
        return binary_scores(math.prod(output_shape))

    def check(self, output_shape: Shape, column: TargetColumn) -> None:
        check_same_shape("binary cross-entropy", output_shape, column)
        if column.min < 0 or column.max > 1:
            raise TargetMismatch(
                f"has values from {column.min:g} to {column.max:g}; binary cross-entropy needs 0 for no and 1 for yes"
            )

    def __call__(self, outputs: Array, targets: Array, weights: Array | None = None) -> Judged:
        t = targets.reshape(outputs.shape).astype(outputs.dtype)
        if self.label_smoothing:
            t *= 1 - self.label_smoothing
            t += self.label_smoothing / 2
        # Both logarithms follow from e = exp(-|x|): softplus(x) = max(x, 0) + log(1 + e), softplus(-x) = that - x.
        e = np.exp(-np.abs(outputs))
        softplus = np.maximum(outputs, 0) + np.log1p(e)
        p = np.where(outputs >= 0, 1, e) / (1 + e)
        q = np.where(outputs >= 0, e, 1) / (1 + e)
        no = 1 - t
        t *= self.positive_weight
        return mean_of_elements(t * (softplus - outputs) + no * softplus, no * p - t * q, weights)
