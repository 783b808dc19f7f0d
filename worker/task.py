"""The part of a job that workers compute: a network, a loss, and the shards of a dataset.

Holding it, a worker answers two questions about any shard: what is its gradient at these parameters, and how good are
these parameters on its held-out rows. Both answers are pure, so anyone may compute them, twice if need be.
"""

import functools
import math
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from worker.arrays import Array, Rows
from worker.gradient import Batch, Gradient, Sums, evaluate, gradient
from worker.layers import Draw
from worker.losses import Loss
from worker.network import Network
from worker.scores import Scores
from worker.shards import Shards
from worker.tables import TableRoom

ROWS_AT_ONCE, NUMBERS_AT_ONCE = 1024, 16_000_000
"""Held-out rows in one forward pass, and numbers that come of them, at the most: enough to be efficient, not more."""


class Computation(Protocol):
    """What workers compute for a job: here from rows of a dataset, in policy.py from episodes."""

    @property
    def network(self) -> Network:
        """What is trained."""

    @property
    def shards(self) -> Shards:
        """How rows, or episodes, are dealt out."""

    @property
    def training_scores(self) -> Scores:
        """The scores that a gradient comes with."""

    @property
    def scores(self) -> Scores:
        """The scores of what is held out."""

    @property
    def rooms(self) -> tuple[TableRoom, ...]:
        """How large the network's tables are, and what a shard's gradient can have of them."""

    def gradient(
        self,
        data: "Data",
        params: Array,
        step: int,
        shard: int,
        out: Array | None = None,
        *,
        look: bool = False,
    ) -> Gradient:
        """The gradient of one shard of one step, its vector written into `out` (dense,) if that is given.

        With a `look`, its sums tell how the layers fared: see worker.health.
        """

    def foresee(self, data: "Data", dtype: np.dtype[np.floating], step: int, shards: Iterable[int]) -> None:
        """Gets at hand what some shards of a step will need of the data, while its parameters are still made."""

    def evaluate(self, data: "Data", params: Array, shard: int) -> Sums:
        """Loss and scores of one shard of what is held out."""


@dataclass(frozen=True)
class Task:
    """What to compute."""

    network: Network
    loss: Loss
    shards: Shards

    @property
    def training_scores(self) -> Scores:
        """The scores that a gradient comes with."""
        return self.loss.training_scores(self.network.output_shape)

    @property
    def scores(self) -> Scores:
        """The scores of the held-out rows."""
        return self.loss.scores(self.network.output_shape)

    @property
    def rooms(self) -> tuple[TableRoom, ...]:
        """How large the network's tables are, and what a shard's gradient can have of them."""
        return self.network.rooms(self.shards.most_rows)

    def gradient(
        self,
        data: "Data",
        params: Array,
        step: int,
        shard: int,
        out: Array | None = None,
        *,
        look: bool = False,
    ) -> Gradient:
        """The gradient of one shard of one step, its vector written into `out` (dense,) if that is given."""
        batch = data.ahead.pop((step, shard), None) or self._batch(data, params.dtype, step, shard)
        return gradient(self.network, self.loss, params, batch, Draw(self.shards.seed, step, shard), out, look=look)

    def foresee(self, data: "Data", dtype: np.dtype[np.floating], step: int, shards: Iterable[int]) -> None:
        """Takes the rows of some shards of a step to come."""
        if data.arriving is not None:
            return  # nobody knows when they will be there
        data.ahead.clear()  # whatever was foreseen and then given to another worker
        data.ahead.update({(step, shard): self._batch(data, dtype, step, shard) for shard in shards})

    def evaluate(self, data: "Data", params: Array, shard: int) -> Sums:
        """Loss and scores of one shard of the held-out rows."""
        rows = self.shards.validation(shard)
        size = rows_at_once(self.network)
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        # Without rows one empty part gives the zeros. One after the other, since the sums of scores may be large.
        terms = (evaluate(self.network, self.loss, params, data.take(part, params.dtype)) for part in parts or [rows])
        return functools.reduce(operator.add, terms)

    def _batch(self, data: "Data", dtype: np.dtype[np.floating], step: int, shard: int) -> Batch:
        if data.arriving is None:
            return data.take(self.shards.training(step, shard), dtype)
        whole = data.arriving(step)
        return Data(whole.inputs, whole.targets, whole.weights).take(self.shards.of_batch(shard), dtype)


def rows_at_once(network: Network) -> int:
    """How many rows to take in one forward pass, so that memory is bounded."""
    return max(1, min(ROWS_AT_ONCE, NUMBERS_AT_ONCE // max(sum(math.prod(shape) for shape in network.shapes), 1)))


class Column(Protocol):
    """An array whose first axis is the row; or something that gives rows as one does."""

    def __getitem__(self, rows: Rows, /) -> Array:
        """A copy of some rows."""


def _nothing() -> Array:
    return np.empty(0)


@dataclass(frozen=True)
class Data:
    """The columns that a job uses, as they are stored."""

    inputs: Column = field(default_factory=_nothing)
    """(rows, *input_shape)"""
    targets: Column = field(default_factory=_nothing)
    """(rows, ...)"""
    weights: Column | None = None
    """(rows,)"""
    arriving: Callable[[int], Batch] | None = field(default=None, kw_only=True)
    """In place of columns: gives the mini-batch of a step, where rows come while the job runs."""
    ahead: dict[tuple[int, int], Batch] = field(default_factory=dict, init=False, compare=False)
    """Rows that were taken before they were needed, by step and shard."""

    def take(self, rows: Rows, dtype: np.dtype[np.floating]) -> Batch:
        """Copies some rows: targets as they are, since only the loss knows what they mean, all else as `dtype`."""
        with np.errstate(over="ignore"):
            weights = self.weights[rows].astype(dtype, copy=False) if self.weights is not None else None
            return Batch(self.inputs[rows].astype(dtype, copy=False), self.targets[rows], weights)
