"""What the trainer relies on, whatever the pool."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from service.cluster.local_pool import LocalPool
from service.cluster.pool import Joined, WorkerPool
from tests.contract.conftest import SLOTS
from tests.contract.tasks import DATA, LOSS, NETWORK, PARAMS, SECONDS, SHARDS, TASK, BrokenTask, until
from worker.gradient import Gradient, Sums
from worker.shards import Shards
from worker.task import Data, Task


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.system)])
def pool(request: pytest.FixtureRequest) -> WorkerPool:
    """Each pool there is."""
    if request.param == "local":
        return LocalPool(SLOTS)
    ray_pool: WorkerPool = request.getfixturevalue("ray_pool")
    return ray_pool


def bits(gradients: Sequence[Gradient]) -> list[tuple[bytes, Sums]]:
    """All there is to a gradient."""
    return [(gradient.vector.tobytes(), gradient.sums) for gradient in gradients]


def gradients(task: Task, step: int) -> list[Gradient]:
    """Computed here, without any pool."""
    return [task.gradient(DATA, PARAMS, step, shard) for shard in range(task.shards.shards)]


def evaluations(task: Task) -> list[Sums]:
    return [task.evaluate(DATA, PARAMS, shard) for shard in range(task.shards.shards)]


def test_capacity(pool: WorkerPool) -> None:
    assert pool.capacity() == SLOTS


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_shard_comes_in_order_and_with_the_same_bits(pool: WorkerPool, count: int) -> None:
    with pool.open(TASK, DATA, count) as workers:
        for step in (0, 1, 4):
            assert bits(workers.gradients(PARAMS, step)) == bits(gradients(TASK, step))
        assert workers.evaluate(PARAMS) == evaluations(TASK)
        until(lambda: workers.gradients(PARAMS, 2) and workers.ready() == count)
        assert bits(workers.gradients(PARAMS, 3)) == bits(gradients(TASK, 3))
        assert workers.evaluate(PARAMS) == evaluations(TASK)


def test_a_worker_without_a_shard(pool: WorkerPool) -> None:
    task = Task(NETWORK, LOSS, Shards(SHARDS.rows, 0.0, batch_size=50, shards=2, seed=6))
    with pool.open(task, DATA, 3) as workers:
        until(lambda: bits(workers.gradients(PARAMS, 0)) == bits(gradients(task, 0)) and workers.ready() == 3)
        assert bits(workers.gradients(PARAMS, 2)) == bits(gradients(task, 2))
        assert workers.evaluate(PARAMS) == evaluations(task)


def test_two_jobs_at_once(pool: WorkerPool) -> None:
    other = Task(NETWORK, LOSS, Shards(SHARDS.rows, 0.5, batch_size=16, shards=3, seed=7))
    with pool.open(TASK, DATA, 1) as some, pool.open(other, DATA, 1) as others:
        for step in (0, 1):
            assert bits(some.gradients(PARAMS, step)) == bits(gradients(TASK, step))
            assert bits(others.gradients(PARAMS, step)) == bits(gradients(other, step))


def test_while_nothing_happens_there_is_nothing_to_wait_for_and_nothing_to_tell(pool: WorkerPool) -> None:
    with pool.open(TASK, DATA, 2) as workers:
        assert workers.wait(SECONDS)
        until(lambda: workers.gradients(PARAMS, 0) and workers.ready() == 2)
        assert workers.wait(0)
        # One that takes longer to start than the others joins them later.
        assert set(workers.changes()) <= {Joined(0), Joined(1)}
        workers.evaluate(PARAMS)
        assert not workers.changes()


def test_data_may_be_mapped_from_a_file_and_read_only(pool: WorkerPool, tmp_path: Path) -> None:
    np.save(tmp_path / "inputs.npy", DATA.inputs)
    np.save(tmp_path / "targets.npy", DATA.targets)
    data = Data(*(np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("inputs", "targets")))
    with pool.open(TASK, data, 1) as workers:
        assert bits(workers.gradients(PARAMS, 1)) == bits(gradients(TASK, 1))
        assert workers.evaluate(PARAMS) == evaluations(TASK)


def test_parameters_can_be_written_after_a_step(pool: WorkerPool) -> None:
    """The trainer may use the array again."""
    params = PARAMS.copy()
    with pool.open(TASK, DATA, 1) as workers:
        answer = bits(workers.gradients(params, 1))
        params[:] = 0
        assert answer == bits(gradients(TASK, 1))
        assert bits(workers.gradients(PARAMS, 1)) == answer


def test_a_mistake_in_the_numerics_is_raised(pool: WorkerPool) -> None:
    """It is no worker's fault: another would make it again."""
    with pool.open(BrokenTask(NETWORK, LOSS, SHARDS), DATA, 2) as workers:
        with pytest.raises(ZeroDivisionError, match="a mistake in shard"):
            workers.gradients(PARAMS, 0)
        assert workers.evaluate(PARAMS) == evaluations(TASK)
