"""Workers that are function calls: what a step is without a cluster.

Nothing is lost and nothing waits, which makes it the yardstick: whatever the cluster does, its bits must be these.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from service.cluster.workers import Change, Spent, computed, packed
from worker.arrays import Array
from worker.blocks import Block
from worker.orders import carry_out
from worker.segment import Kind
from worker.task import Computation, Data


class LocalWorkers:
    """Computes in the thread that asks."""

    def __init__(self, task: Computation, data: Data, count: int = 1, dtype: npt.DTypeLike = np.float32) -> None:
        self._task = task
        self.data = data
        self.count = count
        self._computed = b""
        self._params: Array = np.empty(task.network.size, dtype)

    @property
    def params(self) -> Array:
        return self._params

    def gradients(self, step: int, *, look: bool = False) -> Sequence[Block]:
        return self._compute(Kind.LOOK if look else Kind.GRADIENTS, step)

    def evaluate(self) -> Sequence[Block]:
        return self._compute(Kind.EVALUATE, 0)

    def spent(self) -> Spent:
        spent, self._computed = self._computed, b""
        return Spent(computed=spent)

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

    def _compute(self, kind: Kind, step: int) -> Sequence[Block]:
        shards: dict[int, Array | None] = dict.fromkeys(range(self._task.shards.shards))
        # As many threads as a worker has, since the number decides the order of sums, and with it the bits.
        with threadpool_limits(1):
            blocks, took = carry_out(self._task, self.data, self._params, kind, step, shards)
        self._computed += packed(computed(0, took))
        return blocks
