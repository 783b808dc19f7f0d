"""Scores of classes: outputs (rows, ..., classes), targets (rows, ...) of class numbers.

A place whose class is below 0 is left out, as the losses do.
"""

from dataclasses import dataclass

import numpy as np

from worker.arrays import Array, spread
from worker.scores.score import ratio


@dataclass(frozen=True)
class Accuracy:
    """The share of places whose largest output is at their class; the first counts where several are largest."""

    size = 2

    def sums(self, outputs: Array, targets: Array, weights: Array | None) -> Array:
        outputs, targets, each = places(outputs, targets, weights)
        return _share(outputs.argmax(axis=1) == targets, each)

    def value(self, total: Array) -> float | None:
        return ratio(total[0], total[1])


@dataclass(frozen=True)
class TopAccuracy:
    """The share of places whose class is among the `best` largest outputs; of equal ones the first come first."""

    best: int
    size = 2

    def sums(self, outputs: Array, targets: Array, weights: Array | None) -> Array:
        outputs, targets, each = places(outputs, targets, weights)
        targets = targets[:, np.newaxis].astype(np.intp, copy=False)
        own = np.take_along_axis(outputs, targets, axis=1)
        first = np.arange(outputs.shape[1]) < targets
        before = np.count_nonzero((outputs > own) | ((outputs == own) & first), axis=1)
        return _share(before < self.best, each)

    def value(self, total: Array) -> float | None:
        return ratio(total[0], total[1])


@dataclass(frozen=True)
class MacroF1:
    """The mean over classes of F1 = 2 hits / (targets + guesses), the harmonic mean of precision and recall.

    Classes that are neither a target nor a guess are left out. Sums: (hits, targets, guesses), each (classes,).
    """

    classes: int

    @property
    def size(self) -> int:
        return 3 * self.classes

    def sums(self, outputs: Array, targets: Array, weights: Array | None) -> Array:
        outputs, targets, each = places(outputs, targets, weights)
        guesses = outputs.argmax(axis=1)
        hits = guesses == targets
        hit_weights = None if each is None else each[hits]
        parts = ((targets[hits], hit_weights), (targets, each), (guesses, each))
        return np.concatenate([_histogram(numbers, weight, self.classes) for numbers, weight in parts])

    def value(self, total: Array) -> float | None:
        return mean_f1(*total.reshape(3, self.classes))


@dataclass(frozen=True)
class Confusion:
    """How often a place of one class was taken for another: (classes, classes), a row for each true class.

    It is a matrix and not a number, so it has no value.
    """

    classes: int

    @property
    def size(self) -> int:
        return self.classes**2

    def sums(self, outputs: Array, targets: Array, weights: Array | None) -> Array:
        outputs, targets, each = places(outputs, targets, weights)
        return _histogram(targets.astype(np.intp) * self.classes + outputs.argmax(axis=1), each, self.size)

    def value(self, total: Array) -> float | None:  # noqa: ARG002
        return None

    def matrix(self, total: Array) -> Array:
        """The matrix, from the sums of all rows."""
        return total.reshape(self.classes, self.classes)


def places(outputs: Array, targets: Array, weights: Array | None) -> tuple[Array, Array, Array | None]:
    """Outputs as (places, classes), targets (places,), and weights (places,), of those that are not left out."""
    if outputs.ndim == 2:
        return outputs, targets, weights
    each = None if weights is None else spread(weights, outputs.shape[:-1])
    outputs, targets = outputs.reshape(-1, outputs.shape[-1]), targets.reshape(-1)
    is_counted = targets >= 0
    if is_counted.all():
        return outputs, targets, each
    return outputs[is_counted], targets[is_counted], None if each is None else each[is_counted]


def mean_f1(hits: Array, targets: Array, guesses: Array) -> float | None:
    """The mean of 2 hits / (targets + guesses) over what is one or the other."""
    both = targets + guesses
    seen = both > 0
    return float(np.mean(2 * hits[seen] / both[seen])) if seen.any() else None


def _share(hits: Array, each: Array | None) -> Array:
    if each is None:
        return np.array([np.count_nonzero(hits), len(hits)], np.float64)
    return np.array([np.sum(each, where=hits, dtype=np.float64), np.sum(each, dtype=np.float64)])


def _histogram(numbers: Array, each: Array | None, size: int) -> Array:
    counts: Array = np.bincount(numbers.astype(np.intp, copy=False), each, size).astype(np.float64, copy=False)
    return counts
