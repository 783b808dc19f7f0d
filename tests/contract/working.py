"""Workers of each kind, ready to be asked."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count as counter
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
from threadpoolctl import threadpool_limits

from service.cluster.ray_workers import Patience, RayWorkers
from tests.contract.conftest import PREFIX
from tests.contract.tasks import DATA, PARAMS, until
from worker.actor import BlockRefs
from worker.arrays import Array
from worker.blocks import Block, merge
from worker.gradient import Gradient, Sums, tree_sum
from worker.segment import SHARED_MEMORY
from worker.task import Data, Task

SHARED, OBJECTS, MIXED = "shared_memory", "ray_objects", "mixed"
BLOCK_ROWS = 50

_numbers = counter()


def stored(column: Any) -> BlockRefs:
    """A column in the object store, in several blocks."""
    array = np.asarray(column)
    refs = tuple(ray.put(np.array(array[start : start + BLOCK_ROWS])) for start in range(0, len(array), BLOCK_ROWS))
    return BlockRefs(refs, BLOCK_ROWS, held_bytes=1 << 20)


@contextmanager
def working(
    crew: list[Any],
    task: Task,
    count: int,
    exchange: str = SHARED,
    *,
    data: Data = DATA,
    patience: Patience | None = None,
    fewest: int = 1,
    dtype: npt.DTypeLike = np.float32,
) -> Iterator[RayWorkers]:
    """Workers that have joined, and share memory, or don't, or some of them; their parameters are PARAMS.

    They are taken from the end of `crew`. They can't reach the shared memory once its name is gone, as if they were on
    another host.
    """
    prefix = f"{PREFIX}{next(_numbers)}-"
    columns = (stored(data.inputs), stored(data.targets))
    lent = {number: crew.pop() for number in range(count)}
    workers = RayWorkers(task, columns, (fewest, max(count, 1)), prefix, patience or Patience(), dtype)
    try:
        workers.params[:] = PARAMS if task.network.size == len(PARAMS) else 0
        near = {SHARED: count, OBJECTS: 0, MIXED: 1}[exchange]
        if near:
            workers.lend({number: lent[number] for number in range(near)})
            until(lambda: workers.wait(0.1) and workers.ready() == near)
            workers.evaluate()  # they serve by now
        if near < count:
            for path in SHARED_MEMORY.glob(f"{prefix}*"):
                path.unlink()
            workers.lend(lent)
            until(lambda: workers.wait(0.1) and workers.ready() == count)
        yield workers
    finally:
        workers.close()
        crew.extend(reversed(lent.values()))


def total(blocks: Sequence[Block], task: Task) -> tuple[bytes, Sums]:
    """All there is to the sum over all shards, wherever it was added so far."""
    copies = [Block(b.first, b.width, b.total.writable()) for b in blocks]
    (block,) = merge(copies, task.shards.shards)
    return bits(block.total), block.total.sums


def bits(gradient: Gradient) -> bytes:
    """Those of the vector, and of the rows and values of all tables."""
    parts = [gradient.vector, *(part for table in gradient.tables for part in (table.rows, table.values))]
    return b"".join(part.tobytes() for part in parts)


def expected(
    task: Task, step: int, params: Array = PARAMS, data: Data = DATA, *, look: bool = False
) -> tuple[bytes, Sums]:
    """The same, computed here."""
    with threadpool_limits(1):
        whole = tree_sum([task.gradient(data, params, step, shard, look=look) for shard in range(task.shards.shards)])
    return bits(whole), whole.sums


def evaluated(task: Task, params: Array = PARAMS, data: Data = DATA) -> tuple[bytes, Sums]:
    with threadpool_limits(1):
        return b"", tree_sum([task.evaluate(data, params, shard) for shard in range(task.shards.shards)])


def process(actor: Any) -> int:
    """The process of a worker, also if that is just being started again."""
    call: Callable[[], Any] = actor.process.options(max_task_retries=-1).remote
    return int(ray.get(call()))
