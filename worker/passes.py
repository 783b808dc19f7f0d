"""Forward passes over rows that come one part after the other: what anyone can be asked to compute who knows no job.

Each is a function that knows its network, so that it can be sent once, and then as many parts as there are.
"""

from dataclasses import dataclass

import numpy as np

from worker.arrays import Array
from worker.gradient import Batch, Sums, evaluate
from worker.losses import Loss
from worker.network import Network


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a network with parameters (parameters,) makes of rows."""

    network: Network
    params: Array

    def __call__(self, rows: Array) -> Array:
        """(rows, *output_shape) of (rows, *input_shape). Raises IndexError for a word that has no vector."""
        with np.errstate(all="ignore"):
            return self.network.forward(self.params, rows)[0]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Loss and scores of a network with parameters (parameters,)."""

    network: Network
    params: Array
    loss: Loss

    def __call__(self, batch: Batch) -> Sums:
        """The sums over the rows of a batch. Raises IndexError for a word that has no vector."""
        return evaluate(self.network, self.loss, self.params, batch)
