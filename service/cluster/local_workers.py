"""Workers that are function calls: what a step is without a cluster.

Nothing is lost and nothing waits, which makes it the yardstick: whatever the cluster does, its bits must be these.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from service.cluster.workers import Change
from worker.arrays import Array
from worker.blocks import Block
from worker.gradient import Gradient
from worker.task import Computation, Data


class LocalWorkers:
    """Computes in the thread that asks."""

    def __init__(self, task: Computation, data: Data, count: int = 1, dtype: npt.DTypeLike = np.float32) -> None:
        self._task = task
        self._data = data
        self.count = count
        self._params: Array = np.empty(task.network.size, dtype)

    @property
    def params(self) -> Array:
        return self._params

    def gradients(self, step: int) -> Sequence[Block]:
        # As many threads as a worker has, since the number decides the order of sums, and with it the bits.
        with threadpool_limits(1):
            return [
                Block(shard, 1, self._task.gradient(self._data, self._params, step, shard))
                for shard in range(self._task.shards.shards)
            ]

    def evaluate(self) -> Sequence[Block]:
        with threadpool_limits(1):
            return [
                Block(shard, 1, Gradient(self._params[:0], self._task.evaluate(self._data, self._params, shard)))
                for shard in range(self._task.shards.shards)
            ]

    def ready(self) -> int:
        return self.count

    def shared(self) -> int:
        return 0

    def changes(self) -> Sequence[Change]:
        return ()

    def wait(self, timeout: float) -> bool:  # noqa: ARG002 - there is nothing to wait for
        return True

    def close(self) -> None:
        """Nothing is to be let go."""
