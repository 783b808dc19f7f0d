"""Workers that are function calls: the pool without a cluster.

Nothing is lost and nothing waits, which makes it the yardstick: whatever the Ray pool does, its bits must be these.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from threadpoolctl import threadpool_limits

from service.cluster.pool import Change, Workers
from worker.arrays import Array
from worker.gradient import Gradient, Sums
from worker.task import Data, Task


@dataclass(frozen=True)
class LocalPool:
    """Computes in the thread that asks."""

    slots: int = 4

    def capacity(self) -> int:
        return self.slots

    @contextmanager
    def open(self, task: Task, data: Data, workers: int) -> Iterator[Workers]:
        yield LocalWorkers(task, data, workers)


@dataclass(frozen=True)
class LocalWorkers:
    """One job's workers, which are only counted."""

    task: Task
    data: Data
    count: int

    def gradients(self, params: Array, step: int) -> Sequence[Gradient]:
        # As many threads as a worker has, since the number decides the order of sums, and with it the bits.
        with threadpool_limits(1):
            return [self.task.gradient(self.data, params, step, shard) for shard in range(self.task.shards.shards)]

    def evaluate(self, params: Array) -> Sequence[Sums]:
        with threadpool_limits(1):
            return [self.task.evaluate(self.data, params, shard) for shard in range(self.task.shards.shards)]

    def ready(self) -> int:
        return self.count

    def changes(self) -> Sequence[Change]:
        return ()

    def wait(self, timeout: float) -> bool:  # noqa: ARG002 - there is nothing to wait for
        return True
