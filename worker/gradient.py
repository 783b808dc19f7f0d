"""The gradient of some rows, as sums.

Everything is a sum over rows and is divided by the total count once, after all shards are added. So uneven shards, a
short last batch and an empty shard are exact, which an average of averages is not.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from worker.arrays import Array
from worker.health import Look
from worker.layers import Draw
from worker.losses import Judged, Loss
from worker.network import Network, Pass
from worker.scores import Scores, counted
from worker.tables import TableGradient


@dataclass(frozen=True, eq=False)
class Sums:
    """Loss and scores, summed over `count` rows."""

    loss: float
    scores: Mapping[str, Array]
    """What each score sums over rows, by its name: see worker.scores."""
    count: int
    weight: float
    """What the loss is divided by for its mean: the rows' weights, added; without weights, `count`."""
    health: Array | None = None
    """What was seen of the layers, where there was a look: see worker.health. Sums with and without it add up to one
    without."""

    def __add__(self, other: "Sums") -> "Sums":
        scores = {name: self.scores[name] + other.scores[name] for name in self.scores}
        health = None if self.health is None or other.health is None else self.health + other.health
        return Sums(self.loss + other.loss, scores, self.count + other.count, self.weight + other.weight, health)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sums) or self.scores.keys() != other.scores.keys():
            return False
        mine, others = ((sums.loss, sums.count, sums.weight) for sums in (self, other))
        arrays = [(self.scores[name], other.scores[name]) for name in self.scores]
        if self.health is not None and other.health is not None:
            arrays.append((self.health, other.health))
        same = mine == others and (self.health is None) == (other.health is None)
        return same and all(np.array_equal(*pair) for pair in arrays)

    @property
    def mean_loss(self) -> float:
        """The mean loss; 0 if nothing weighs anything."""
        return self.loss / self.weight if self.weight else 0.0


@dataclass(frozen=True)
class Batch:
    """Some rows of a dataset."""

    inputs: Array
    """(rows, *input_shape)"""
    targets: Array
    """(rows, ...)"""
    weights: Array | None = None
    """(rows,): how much each row counts; without them, every row counts 1."""


@dataclass(frozen=True)
class Gradient:
    """The gradient of the summed loss, with the sums of the same rows."""

    vector: Array
    """(dense,): of all parameters that are not in tables."""
    sums: Sums
    tables: tuple[TableGradient, ...] = ()
    turned: float = 0.0
    """When the pass was over forward and began backward, by this process's performance counter. Unknown of a sum."""

    def __add__(self, other: "Gradient") -> "Gradient":
        return self.plus(other)

    def plus(self, other: "Gradient", out: Array | None = None) -> "Gradient":
        """The sum, its vector written into `out` (dense,) if that is given."""
        with np.errstate(over="ignore", invalid="ignore"):
            vector = np.add(self.vector, other.vector, out=out)
            tables = tuple(left + right for left, right in zip(self.tables, other.tables, strict=True))
        return Gradient(vector, self.sums + other.sums, tables)

    def writable(self) -> "Gradient":
        """The same with a vector of its own, to be written into. Tables are never written into."""
        return replace(self, vector=self.vector.copy())


def gradient(
    network: Network,
    loss: Loss,
    params: Array,
    batch: Batch,
    draw: Draw | None = None,
    out: Array | None = None,
    *,
    look: bool = False,
) -> Gradient:
    """One forward and one backward pass over some rows.

    The vector is written into `out` (dense,) if that is given. Without a `draw` it is the gradient of what the
    network predicts. With a `look`, the sums tell how the layers fared.

    A value that overflows becomes infinite without a warning: the trainer looks at every sum and decides.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        seen = Look(network) if look else None
        done = network.forward(params, batch.inputs, draw, batch.weights, seen)
        judged = loss(done.outputs, batch.targets, done.weights)
        turned = time.perf_counter()
        vector = np.empty(network.dense, params.dtype) if out is None else out
        tables = done.backward(judged.gradient, vector)
    scores = loss.training_scores(network.output_shape)
    sums = _sums(scores, judged, done, batch, seen.sums if seen else None)
    return Gradient(vector, sums, tables, turned)


def evaluate(network: Network, loss: Loss, params: Array, batch: Batch) -> Sums:
    """A forward pass alone, and all scores."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        done = network.forward(params, batch.inputs, weights=batch.weights)
        judged = loss(done.outputs, batch.targets, done.weights)
        return _sums(loss.scores(network.output_shape), judged, done, batch)


T = TypeVar("T", Gradient, Sums)


def tree_sum(terms: Sequence[T]) -> T:
    """Adds in a fixed pairwise tree over the position: ((0 + 1) + (2 + 3)) + ...

    Addition of floats is not associative, so the order decides the last bits. A fixed tree makes them independent of
    which term arrived first, and rounds less than a running sum (Higham 1993, "The accuracy of floating point
    summation"). Raises IndexError if there are no terms.
    """
    level = list(terms)
    while len(level) > 1:
        pairs = [left + right for left, right in zip(level[::2], level[1::2], strict=False)]
        level = pairs + level[2 * len(pairs) :]
    return level[0]


def _sums(scores: Scores, judged: Judged, done: Pass, batch: Batch, health: Array | None = None) -> Sums:
    counts = counted(scores, done.outputs, batch.targets, done.weights)
    return Sums(judged.loss + done.penalty, counts, len(done.outputs), judged.weight, health)
