"""What a worker does with an order, however it came: it computes some shards, adds those that are siblings, and says
how long that took.
"""

import time
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from worker.arrays import Array
from worker.blocks import Block, merge
from worker.gradient import Gradient
from worker.segment import Kind
from worker.task import Computation, Data

_NOTHING = np.empty(0, np.float32)


class Took(NamedTuple):
    """How long an order took."""

    forward: float
    """Seconds to take the rows and go forward through the network, or to play episodes."""
    backward: float
    """Seconds for the rest."""
    shards: int


def carry_out(
    task: Computation, data: Data, params: Array, kind: Kind, step: int, shards: Mapping[int, Array | None]
) -> tuple[list[Block], Took]:
    """Computes some shards, each with the vector (dense,) to write its gradient into, or None for a new one."""
    begin = time.perf_counter()
    blocks, forward = [], 0.0
    for shard, out in shards.items():
        if kind == Kind.EVALUATE:
            total = Gradient(_NOTHING, task.evaluate(data, params, shard))
        else:
            began = time.perf_counter()
            total = task.gradient(data, params, step, shard, out, look=kind == Kind.LOOK)
            forward += max(total.turned - began, 0.0)
        blocks.append(Block(shard, 1, total))
    if len(blocks) > 1:
        blocks = merge(blocks, task.shards.shards)
    taken = time.perf_counter() - begin
    if kind == Kind.EVALUATE:
        forward = taken
    return blocks, Took(forward, taken - forward, len(shards))
