"""What a score is: what people read beside the loss.

Like everything a shard returns it is a sum over rows; the sums of all shards are added, and only the value is no sum
any more. So a score is exact for any split. A row counts as much as its weight says, as in the loss.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol, TypeAlias

import numpy as np

from worker.arrays import Array


class Score(Protocol):
    """A function of outputs and targets. Implementations are frozen dataclasses."""

    @property
    def size(self) -> int:
        """How many numbers its sums are."""

    def sums(self, outputs: Array, targets: Array, weights: Array | None) -> Array:
        """What is summed over rows, (size,) in float64: of outputs (rows, ...) and targets (rows, ...).

        Weights are as for losses: (rows,), or of padded sequences (rows, time).
        """

    def value(self, total: Array) -> float | None:
        """The score, from the sums of all rows; None where there is none, as without rows, or if it is no number."""


Scores: TypeAlias = Mapping[str, Score]
"""Scores by the name that people read."""

NONE: Scores = MappingProxyType({})


def counted(scores: Scores, outputs: Array, targets: Array, weights: Array | None) -> dict[str, Array]:
    """The sums of some rows, by score."""
    return {name: score.sums(outputs, targets, weights) for name, score in scores.items()}


def nothing(scores: Scores) -> dict[str, Array]:
    """The sums of no rows."""
    return {name: np.zeros(score.size) for name, score in scores.items()}


def values(scores: Scores, totals: Mapping[str, Array]) -> dict[str, float]:
    """The scores that there are, and are finite, from the sums of all rows."""
    found = {name: score.value(totals[name]) for name, score in scores.items()}
    return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}


def sizes(scores: Scores) -> tuple[tuple[str, int], ...]:
    """How many numbers each takes, in a fixed order."""
    return tuple((name, score.size) for name, score in scores.items())


def ratio(part: float, whole: float) -> float | None:
    """A share; None if it is one of nothing."""
    return float(part / whole) if whole else None
