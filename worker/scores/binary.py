"""Scores of yes or no: outputs (rows, ...) are logits, yes above 0; targets, in any shape of as many, yes above 1/2."""

from dataclasses import dataclass

import numpy as np

from worker.arrays import Array, of_elements
from worker.scores.classes import mean_f1
from worker.scores.score import ratio

LEAST, MOST = (127 - 12) << 7, (127 + 8) << 7
"""The upper bits of 2^-12 and 2^8, the sign left out: an exponent, biased by 127, and 7 bits of the fraction."""

BINS = 2 * (MOST - LEAST) + 1


@dataclass(frozen=True)
class BinaryAccuracy:
    """The share of right answers."""

    size = 2

    def sums(self, outputs: Array, targets: Array, weights: Array | None) -> Array:
        guesses, answers = _decided(outputs, targets)
        hits = guesses == answers
        if weights is None:
            return np.array([np.count_nonzero(hits), hits.size], np.float64)
        each = of_elements(weights, hits.shape[1])
        return np.array([each[hits].sum(dtype=np.float64), each.sum(dtype=np.float64)])

    def value(self, total: Array) -> float | None:
        return ratio(total[0], total[1])


@dataclass(frozen=True)
class BinaryF1:
    """F1 = 2 hits / (targets + guesses) of yes; with several outputs, the mean of theirs.

    An output with neither is left out. Sums: (hits, targets, guesses), each (outputs,).
    """

    outputs: int

    @property
    def size(self) -> int:
        return 3 * self.outputs

    def sums(self, outputs: Array, targets: Array, weights: Array | None) -> Array:
        guesses, answers = _decided(outputs, targets)
        each = np.ones(1) if weights is None else of_elements(weights, self.outputs).astype(np.float64)
        return np.concatenate([(each * yes).sum(axis=0) for yes in (guesses & answers, answers, guesses)])

    def value(self, total: Array) -> float | None:
        return mean_f1(*total.reshape(3, self.outputs))


@dataclass(frozen=True)
class BinaryConfusion:
    """How often no and yes were taken for each other: (2, 2), a row for each truth."""

    size = 4

    def sums(self, outputs: Array, targets: Array, weights: Array | None) -> Array:
        guesses, answers = _decided(outputs, targets)
        return np.bincount((2 * answers + guesses)[:, 0], _of_rows(weights), 4).astype(np.float64, copy=False)

    def value(self, total: Array) -> float | None:  # noqa: ARG002
        return None

    def matrix(self, total: Array) -> Array:
        """The matrix, from the sums of all rows."""
        return total.reshape(2, 2)


@dataclass(frozen=True)
class Auc:
    """The area under the ROC curve: how likely it is that a yes gets a larger output than a no, equal ones half.

    By ranks that would need all outputs at once (Hanley and McNeil 1982). To be a sum over rows it counts in bins: the
    upper 16 bits of a float32, its sign, exponent and 7 bits of the fraction, so that two outputs that are nearer than
    1 in 128 may count as equal; and so do those beyond 256, and those within 2^-12 of 0. Exact for outputs that are
    rounded in this way. With two classes the output is the difference of their logits. Sums: (no, yes) by bin.
    """

    size = 2 * BINS

    def sums(self, outputs: Array, targets: Array, weights: Array | None) -> Array:
        margin = outputs[:, 1] - outputs[:, 0] if outputs.shape[1] == 2 else outputs[:, 0]
        number = bin_of(margin.reshape(-1)) + (targets.reshape(-1) > 0.5) * (self.size // 2)
        return np.bincount(number, _of_rows(weights), self.size).astype(np.float64, copy=False)

    def value(self, total: Array) -> float | None:
        no, yes = total.reshape(2, -1)
        below = np.cumsum(no) - no / 2
        return ratio(float(yes @ below), float(yes.sum() * no.sum()))


def bin_of(x: Array) -> Array:
    """A whole number from 0 on for each float, that grows with it."""
    bits = np.ascontiguousarray(x, np.float32).view(np.int32) >> 16
    size = np.clip(bits & 0x7FFF, LEAST, MOST) - LEAST
    bins: Array = (MOST - LEAST) + np.where(bits < 0, -size, size)
    return bins


def _of_rows(weights: Array | None) -> Array | None:
    """Weights as (rows,), of rows with one output: sequences of them have one place."""
    return None if weights is None else weights.reshape(-1)


def _decided(outputs: Array, targets: Array) -> tuple[Array, Array]:
    """Guesses and answers, truth values of shape (rows, outputs)."""
    rows = len(outputs)
    width = outputs[:1].size if rows else int(np.prod(outputs.shape[1:]))
    return outputs.reshape(rows, width) > 0, targets.reshape(rows, width) > 0.5
