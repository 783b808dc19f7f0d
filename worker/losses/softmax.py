"""Softmax and cross-entropy: for one of several classes, once a row or at many places of it."""

import math
from dataclasses import dataclass

import numpy as np

from worker.arrays import Array, Shape, spread
from worker.errors import InvalidValue, TargetMismatch
from worker.losses.loss import Judged, TargetColumn
from worker.scores import ACCURACY, Scores, class_scores

MOST_CLASS_WEIGHTS = 100_000


@dataclass(frozen=True)
class SoftmaxCrossEntropy:
    """-log softmax(logits)[class], for logits (rows, ..., classes) and integer classes (rows, ...).

    With p = softmax(logits) its gradient is p, less 1 at the class (Bishop 2006, eq. 4.109). Shifting by the largest
    logit keeps exp within range and changes nothing.

    Where a row has several places, such as the words of a sentence, each counts like a row, and the mean is over
    places. One whose class is below 0 is left out.
    """

    class_weights: tuple[float, ...] = ()
    """How much a place of each class counts; the mean is divided by the sum of them, as in PyTorch. Default: 1."""
    label_smoothing: float = 0.0
    """The share s of the target that is spread over all classes alike: (1 - s) at the class, and s / classes
    everywhere (Szegedy et al. 2016, section 7)."""

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise InvalidValue("label_smoothing", f"is {self.label_smoothing:g}; must be 0 up to, but not including, 1")
        if len(self.class_weights) > MOST_CLASS_WEIGHTS:
            raise InvalidValue(
                "class_weights", f"has {len(self.class_weights):,} weights; must have at most {MOST_CLASS_WEIGHTS:,}"
            )
        for index, weight in enumerate(self.class_weights):
            if not 0 <= weight <= 1e9:
                raise InvalidValue("class_weights", f"is {weight:g} for class {index}; must be 0 to 1e9")
        if self.class_weights and not any(self.class_weights):
            raise InvalidValue("class_weights", "is 0 for all classes, so that no row would count")

    def training_scores(self, output_shape: Shape) -> Scores:  # noqa: ARG002 - they are the same for all
        return ACCURACY

    def scores(self, output_shape: Shape) -> Scores:
        return class_scores(output_shape)

    def check(self, output_shape: Shape, column: TargetColumn) -> None:
        *places, classes = output_shape or (0,)
        if classes < 2:
            raise TargetMismatch(
                f"softmax cross-entropy needs one logit a class, at least 2, but the network ends in {output_shape}"
            )
        if not column.integral or column.row_shape != tuple(places):
            flat = "; put a flatten layer in front if a row has one class" if places and not column.row_shape else ""
            per = f"a row of shape {tuple(places)}" if places else "a row"
            raise TargetMismatch(
                f"softmax cross-entropy needs a column of integers, one class number {per}, since the network ends in "
                f"{output_shape}; this one has rows of shape {column.row_shape}{flat}"
            )
        if column.min < (-1 if places else 0) or column.max >= classes:
            leave_out = ", and -1 for a place that is to be left out" if places else ""
            raise TargetMismatch(
                f"has classes from {column.min:g} to {column.max:g}, but the network ends in {classes} units, "
                f"which is for classes 0 to {classes - 1}{leave_out}"
            )
        if self.class_weights:
            self._check_class_weights(classes, column)

    def _check_class_weights(self, classes: int, column: TargetColumn) -> None:
        if len(self.class_weights) != classes:
            raise InvalidValue(
                "class_weights",
                f"has {len(self.class_weights)} weights, but the network ends in {classes} units; give one a class",
            )
        nobody = [index for index in missing_classes(classes, column) if self.class_weights[index]]
        if nobody:
            raise InvalidValue(
                "class_weights",
                f"gives a weight to {named(nobody)}, of which the dataset has no row; give 0 to a class that is not "
                "to be learned, or add rows of it",
            )

    def __call__(self, outputs: Array, targets: Array, weights: Array | None = None) -> Judged:
        classes = outputs.shape[-1]
        target = targets.reshape(-1).astype(np.intp, copy=False)
        each = None if weights is None else spread(weights, outputs.shape[:-1])
        if outputs.ndim > 2 and target.min(initial=0) < 0:
            counted = (target >= 0).astype(outputs.dtype)
            each = counted if each is None else each * counted
            target = np.maximum(target, 0)  # any class, since it counts nothing
        gradient = np.subtract(outputs, np.maximum.reduce(outputs, axis=-1, keepdims=True), order="C")
        flat = gradient.reshape(-1)
        at_target = target + np.arange(0, flat.size, classes)
        of_target = flat.take(at_target)
        if self.class_weights or self.label_smoothing:
            return self._with_options(gradient, target, of_target, each)
        np.exp(gradient, out=gradient)
        sums = np.add.reduce(gradient, axis=-1, keepdims=True)
        gradient /= sums
        flat[at_target] -= 1
        np.log(sums, out=sums)
        if each is None:
            loss = np.add.reduce(sums, axis=None, dtype=np.float64) - np.add.reduce(of_target, dtype=np.float64)
            return Judged(float(loss), gradient, len(target))
        gradient *= each.reshape(sums.shape)
        of_place = sums.reshape(-1) - of_target
        return Judged(float(np.dot(of_place, each)), gradient, float(each.sum(dtype=np.float64)))

    def _with_options(self, shifted: Array, target: Array, of_target: Array, each: Array | None) -> Judged:
        """With z = the shifted logits, L = log sum exp z, s = label_smoothing, and r = what each place counts:

        loss = r ((1 - s) w[y] (L - z[y]) + s / classes (L sum(w) - z w)),
        gradient = r (((1 - s) w[y] + s / classes sum(w)) p - (1 - s) w[y] at y - s / classes w).
        """
        classes = shifted.shape[-1]
        z = shifted.reshape(-1, classes)
        w = np.asarray(self.class_weights or np.ones(classes), z.dtype)
        share = self.label_smoothing / classes
        of_class = w[target]
        zw = z @ w if share else np.zeros_like(of_target)
        p = np.exp(z, out=z)
        sums = np.add.reduce(p, axis=1)
        p /= sums[:, np.newaxis]
        log_sums = np.log(sums)
        at_class = (1 - self.label_smoothing) * of_class
        in_all = share * w.sum()
        loss = at_class * (log_sums - of_target) + (in_all * log_sums - share * zw)
        p *= (at_class + in_all)[:, np.newaxis]
        p[np.arange(len(target)), target] -= at_class
        if share:
            p -= share * w
        if each is not None:
            p *= each[:, np.newaxis]
            loss *= each
            of_class = of_class * each
        return Judged(float(loss.sum(dtype=np.float64)), shifted, float(of_class.sum(dtype=np.float64)))


def missing_classes(classes: int, column: TargetColumn) -> list[int]:
    """The classes of which there is no row, as far as that is known."""
    above = range(max(math.floor(column.max) + 1, 0), classes)
    return [*(index for index in column.missing if index < classes), *above]


def named(classes: list[int]) -> str:
    """Some classes, as a message names them: "class 3", "classes 3, 4 and 17 more"."""
    first = ", ".join(map(str, classes[:10]))
    more = f" and {len(classes) - 10} more" if len(classes) > 10 else ""
    return f"class{'es' if len(classes) > 1 else ''} {first}{more}"
