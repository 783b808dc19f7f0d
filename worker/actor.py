"""A worker: the Ray actor that holds a task and its data, and computes the shards it is given.

It keeps nothing between calls, so that Ray may start it anew at any moment: what the constructor is given is all there
is to a worker.
"""

import os

import ray
from threadpoolctl import threadpool_limits

from worker.arrays import Array
from worker.gradient import Gradient, Sums
from worker.task import Data, Task


@ray.remote
class Worker:
    """Computes shards of one job."""

    def __init__(self, task: Task, inputs: Array, targets: Array) -> None:
        """Ray passes the columns as views of its object store: one copy a node, however many workers share it."""
        # One thread each: two workers with two threads each on two cores take turns instead of working. It also
        # fixes the order in which a product is summed, and with it the bits.
        threadpool_limits(1)
        self._task = task
        self._data = Data(inputs, targets)

    def process(self) -> int:
        """The process id. Answered once the worker is ready."""
        return os.getpid()

    def gradients(self, params: Array, step: int, shards: tuple[int, ...]) -> list[Gradient]:
        """The gradients of some shards of a step, in the order asked for."""
        return [self._task.gradient(self._data, params, step, shard) for shard in shards]

    def evaluate(self, params: Array, shards: tuple[int, ...]) -> list[Sums]:
        """Loss and scores of some shards of the held-out rows, in the order asked for."""
        return [self._task.evaluate(self._data, params, shard) for shard in shards]
