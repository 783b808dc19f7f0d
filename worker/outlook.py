"""What is looked at of each layer of a network, and where among the sums of all layers it lies."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from worker.layers import CanDie, CanSaturate, Leaf

COUNT, SUM, SQUARES, FLAT, ALIVE = range(5)
"""A layer's sums: of its outputs their number, they, and their squares; how many lie where the curve is flat; and from
ALIVE on of each unit that is watched how often it was alive."""

UNITS = 8_192
"""Units of all layers together that are watched for whether they die: 64 KiB in a slot."""


@dataclass(frozen=True)
class Outlook:
    """What is looked at of a layer."""

    leaf: Leaf
    start: int
    """Where its sums begin."""
    can_saturate: bool
    units: int
    """How many units are watched: none of a layer that can't die."""
    stride: int
    """Of more units than there is room for, every so many."""

    @property
    def stop(self) -> int:
        """Where its sums end."""
        return self.start + ALIVE + self.units


def outlooks(leaves: Iterable[Leaf]) -> Mapping[tuple[int, ...], Outlook]:
    """What is looked at of some layers, by their paths, in order."""
    leaves = list(leaves)
    most = UNITS // max(sum(isinstance(leaf.layer, CanDie) for leaf in leaves), 1)
    found: dict[tuple[int, ...], Outlook] = {}
    start = 0
    for leaf in leaves:
        units = last_axis(leaf) if isinstance(leaf.layer, CanDie) else 0
        stride = max(math.ceil(units / most), 1)
        outlook = Outlook(leaf, start, isinstance(leaf.layer, CanSaturate), math.ceil(units / stride), stride)
        found[leaf.path] = outlook
        start = outlook.stop
    return found


def last_axis(leaf: Leaf) -> int:
    """How many units a layer has: what one computes it does for all places of a row."""
    return leaf.shape[-1] if leaf.shape else 1
