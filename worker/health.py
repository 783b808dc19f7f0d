"""How layers fare in a step: what can be seen of their outputs, as sums.

Like everything that shards bring, these are sums of a fixed size, which follows from the network alone, so that they
are exact however a mini-batch is cut. They are computed in a few steps only, those that the trainer wants to look at.
"""

import math
from dataclasses import dataclass

import numpy as np

from worker.arrays import Array
from worker.layers import CanDie, CanSaturate, Leaf
from worker.network import Network

COUNT, SUM, SQUARES, ROOM = 0, 1, 2, 3
"""What is summed of every layer; from ROOM on what there is beside it: see `Outlook`."""

UNITS = 8_192
"""Units of all layers together that are watched for whether they die: 64 KiB in a slot."""

PIECE = 65_536
"""Numbers that are turned into double precision at a time, so that they stay in the cache."""


@dataclass(frozen=True)
class Outlook:
    """What is seen of a layer, and where among a network's sums that lies."""

    leaf: Leaf
    start: int
    units: int = 0
    """How many units are watched, of a layer that can die: for each of them, how often it was alive."""
    stride: int = 1
    """Of more units than there is room for, every so many."""

    @property
    def counts_flat(self) -> bool:
        """Whether it can saturate: then there is one number, how many outputs were where its curve is flat."""
        return isinstance(self.leaf.layer, CanSaturate)

    @property
    def stop(self) -> int:
        """Where its sums end."""
        return self.start + ROOM + self.counts_flat + self.units


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
        views = outlooks(network)
        self._outlooks = {view.leaf.path: view for view in views}
        self.sums: Array = np.zeros(size(network))

    def __call__(self, path: tuple[int, ...], y: Array, mask: Array | None) -> None:
        """Takes in a layer's outputs; of sequences, at the places that are not padded."""
        view = self._outlooks.get(path)
        if view is None:  # a block, which consists of others
            return
        if mask is not None and y.ndim == 3 and y.shape[:2] == mask.shape:
            y = y[mask]
        sums, numbers, layer = self.sums[view.start : view.stop], y.reshape(-1), view.leaf.layer
        sums[COUNT] += len(numbers)
        for start in range(0, len(numbers), PIECE):
            # Squares of single precision lose nothing in double, so that these need no mean to be taken off first.
            piece = numbers[start : start + PIECE].astype(np.float64)
            sums[SUM] += piece.sum()
            sums[SQUARES] += np.dot(piece, piece)
        if isinstance(layer, CanSaturate):
            sums[ROOM] += np.count_nonzero(layer.flat(y))
        if isinstance(layer, CanDie):
            of_units = y.reshape(-1, _units(view.leaf))[:, :: view.stride]
            sums[ROOM:] += np.count_nonzero(layer.alive(of_units), axis=0)


def outlooks(network: Network) -> list[Outlook]:
    """What is seen of each layer, in order."""
    most = UNITS // max(sum(isinstance(leaf.layer, CanDie) for leaf in network.leaves), 1)
    found: list[Outlook] = []
    for leaf in network.leaves:
        start = found[-1].stop if found else 0
        units = _units(leaf) if isinstance(leaf.layer, CanDie) else 0
        stride = max(math.ceil(units / most), 1)
        found.append(Outlook(leaf, start, math.ceil(units / stride), stride))
    return found


def size(network: Network) -> int:
    """How many numbers the sums are."""
    return outlooks(network)[-1].stop


def outputs(network: Network, sums: Array) -> list[Outputs | None]:
    """What the sums of all rows say of each layer; None where nothing came out of it."""
    found: list[Outputs | None] = []
    for view in outlooks(network):
        own = sums[view.start : view.stop]
        count = float(own[COUNT])
        if not count:
            found.append(None)
            continue
        mean = float(own[SUM]) / count
        deviation = math.sqrt(max(float(own[SQUARES]) / count - mean * mean, 0.0))
        dead = float(np.mean(own[ROOM:] == 0)) if view.units else None
        found.append(Outputs(mean, deviation, dead, float(own[ROOM]) / count if view.counts_flat else None))
    return found


def _units(leaf: Leaf) -> int:
    """The numbers of a row's last axis: what a unit computes it does for all places."""
    return leaf.shape[-1] if leaf.shape else 1
