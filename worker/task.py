"""The part of a job that workers compute: a network, a loss, and the shards of a dataset.

Holding it, a worker answers two questions about any shard: what is its gradient at these parameters, and how good are
these parameters on its held-out rows. Both answers are pure, so anyone may compute them, twice if need be.
"""

from dataclasses import dataclass

import numpy as np

from worker.arrays import Array, Rows
from worker.gradient import Gradient, Sums, evaluate, gradient, tree_sum
from worker.losses import Loss
from worker.network import Network
from worker.shards import Shards

EVALUATED_AT_ONCE = 1024
"""Held-out rows in one forward pass: enough to be efficient, few enough that the activations stay small."""


@dataclass(frozen=True)
class Task:
    """What to compute."""

    network: Network
    loss: Loss
    shards: Shards

    def gradient(self, data: "Data", params: Array, step: int, shard: int) -> Gradient:
        """The gradient of one shard of one step."""
        x, y = data.take(self.shards.training(step, shard), params.dtype)
        return gradient(self.network, self.loss, params, x, y)

    def evaluate(self, data: "Data", params: Array, shard: int) -> Sums:
        """Loss and scores of one shard of the held-out rows."""
        rows = self.shards.validation(shard)
        parts = [rows[start : start + EVALUATED_AT_ONCE] for start in range(0, len(rows), EVALUATED_AT_ONCE)]
        # Without rows one empty part gives the zeros.
        return tree_sum(
            [evaluate(self.network, self.loss, params, *data.take(part, params.dtype)) for part in parts or [rows]]
        )


@dataclass(frozen=True)
class Data:
    """The two columns that a job uses: inputs (rows, *input_shape) and targets (rows, ...), as they are stored."""

    inputs: Array
    targets: Array

    def take(self, rows: Rows, dtype: np.dtype[np.floating]) -> tuple[Array, Array]:
        """Copies some rows: inputs as `dtype`, targets as they are, since only the loss knows what they mean."""
        with np.errstate(over="ignore"):
            return self.inputs[rows].astype(dtype, copy=False), self.targets[rows]
