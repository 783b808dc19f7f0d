"""How layers fare in a step: what can be seen of their outputs, as sums.

Like everything that shards bring, these are sums of a fixed size, which follows from the network alone, so that they
are exact however a mini-batch is cut. They are computed in a few steps only, those that the trainer wants to look at.
"""

import math
from dataclasses import dataclass
from typing import cast

import numpy as np

from worker.arrays import Array
from worker.layers import CanDie, CanSaturate
from worker.network import Network
from worker.outlook import ALIVE, COUNT, FLAT, SQUARES, SUM, last_axis

PIECE = 65_536
"""Numbers that are turned into double precision at a time, so that they stay in the cache."""


@dataclass(frozen=True)
class Outputs:
    """What the sums of all rows say of a layer's outputs."""

    mean: float
    deviation: float
    dead_ratio: float | None
    """The share of units that were never alive; None of a layer that can't die."""
    saturated_ratio: float | None
    """The share of outputs where the curve is flat; None of a layer that can't saturate."""


class Look:
    """Adds up what comes out of a network's layers in a pass over some rows. Shown to `Network.forward`."""

    def __init__(self, network: Network) -> None:
        self._outlooks = network.outlooks
        self.sums: Array = np.zeros(size(network))

    def __call__(self, path: tuple[int, ...], y: Array, mask: Array | None) -> None:
        """Takes in a layer's outputs; of sequences, at the places that are not padded."""
        view = self._outlooks.get(path)
        if view is None:  # a block, which consists of others
            return
        if mask is not None and y.ndim > 2:
            y = y[mask]
        sums, numbers, layer = self.sums[view.start : view.stop], y.reshape(-1), view.leaf.layer
        sums[COUNT] += len(numbers)
        for start in range(0, len(numbers), PIECE):
            # Squares of single precision lose nothing in double. Their sum does: some 1e-15 (mean / deviation)^2 of the
            # deviation, which for outputs of a layer is little. Taking a mean off first would make it no sum any more.
            piece = numbers[start : start + PIECE].astype(np.float64)
            sums[SUM] += piece.sum()
            sums[SQUARES] += np.dot(piece, piece)
        if view.can_saturate:
            sums[FLAT] += np.count_nonzero(cast("CanSaturate", layer).flat(y))
        if view.units:
            of_units = y.reshape(-1, last_axis(view.leaf))[:, :: view.stride]
            sums[ALIVE:] += np.count_nonzero(cast("CanDie", layer).alive(of_units), axis=0)


def size(network: Network) -> int:
    """How many numbers the sums are."""
    return max(view.stop for view in network.outlooks.values())


def outputs(network: Network, sums: Array) -> list[Outputs | None]:
    """What the sums of all rows say of each layer; None where nothing came out of it."""
    found: list[Outputs | None] = []
    for view in network.outlooks.values():
        own = sums[view.start : view.stop]
        count = float(own[COUNT])
        if not count:
            found.append(None)
            continue
        mean = float(own[SUM]) / count
        deviation = math.sqrt(max(float(own[SQUARES]) / count - mean * mean, 0.0))
        dead = float(np.mean(own[ALIVE:] == 0)) if view.units else None
        found.append(Outputs(mean, deviation, dead, float(own[FLAT]) / count if view.can_saturate else None))
    return found
