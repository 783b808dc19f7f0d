"""What the trainer relies on, whatever its workers are."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, suppress
from itertools import starmap
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from service.cluster.local_workers import LocalWorkers
from service.cluster.workers import OF_ORDER, Computed, Joined, Spent, TooFewWorkers
from service.training.session import ClosingWorkers
from tests.contract.tasks import DATA, INPUTS, LOSS, NETWORK, PARAMS, SHARDS, TARGETS, TASK, BrokenTask, until
from tests.contract.working import MIXED, OBJECTS, SHARED, evaluated, expected, total, working
from worker.shards import Shards
from worker.task import Data, Task

Make: TypeAlias = Callable[..., AbstractContextManager[ClosingWorkers]]


@pytest.fixture(
    params=["local", *(pytest.param(exchange, marks=pytest.mark.system) for exchange in (SHARED, OBJECTS, MIXED))]
)
def exchange(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(exchange: str, request: pytest.FixtureRequest) -> Make:
    """Makes workers of each kind, for a task, their number, and data."""
    if exchange != "local":
        crew = request.getfixturevalue("crew")
        return lambda task, count, data=DATA, dtype=np.float32: working(
            crew, task, count, exchange, data=data, dtype=dtype
        )

    def local(task: Task, count: int, data: Data = DATA, dtype: type = np.float32) -> AbstractContextManager[Any]:
        workers = LocalWorkers(task, data, count, dtype)
        workers.params[:] = PARAMS
        return closing(workers)

    return local


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_sum_over_all_shards_has_the_same_bits(make: Make, count: int) -> None:
    with make(TASK, count) as workers:
        for step in (0, 1, 4, 2):
            assert total(workers.gradients(step), TASK) == expected(TASK, step)
            assert workers.ready() == count
        assert total(workers.evaluate(), TASK) == evaluated(TASK)
        assert total(workers.gradients(3), TASK) == expected(TASK, 3)


def test_a_look_at_the_layers_has_the_same_bits(make: Make) -> None:
    with make(TASK, 2) as workers:
        for step, look in ((0, True), (1, False), (2, True)):
            seen = total(workers.gradients(step, look=look), TASK)
            assert seen == expected(TASK, step, look=look)
            assert (seen[1].health is not None) is look


def test_what_a_question_took_is_told_by_worker(make: Make, exchange: str) -> None:
    with make(TASK, 2) as workers:
        workers.spent()
        began = time.perf_counter()
        workers.gradients(0)
        workers.evaluate()
        taken = time.perf_counter() - began
        spent = workers.spent()
        orders = list(starmap(Computed, OF_ORDER.iter_unpack(spent.computed)))
        assert sum(order.shards for order in orders) == 2 * TASK.shards.shards
        assert all(order.forward > 0 and order.backward >= 0 for order in orders)
        for worker in {order.worker for order in orders}:
            assert sum(order.forward + order.backward for order in orders if order.worker == worker) < 1e9 * taken
        assert 0 <= spent.split + spent.gather < taken
        # At the least what each worker read twice and a sum that came back; at the most a gradient a shard.
        bytes_read, gradient = 4 * workers.params.nbytes, TASK.network.dense * 4
        least, most = (0, 0) if exchange == "local" else (bytes_read + gradient, bytes_read + SHARDS.shards * gradient)
        assert least <= spent.exchanged <= most
        assert workers.spent() == Spent()


def test_a_worker_without_a_shard(make: Make) -> None:
    task = Task(NETWORK, LOSS, Shards(SHARDS.rows, 0.0, batch_size=50, shards=2, seed=6))
    with make(task, 3) as workers:
        for step in (0, 2):
            assert total(workers.gradients(step), task) == expected(task, step)
        assert total(workers.evaluate(), task) == evaluated(task)


def test_a_single_shard(make: Make) -> None:
    task = Task(NETWORK, LOSS, Shards(SHARDS.rows, 0.3, batch_size=50, shards=1, seed=6))
    with make(task, 2) as workers:
        assert total(workers.gradients(1), task) == expected(task, 1)
        assert total(workers.evaluate(), task) == evaluated(task)


def test_two_jobs_at_once(make: Make) -> None:
    other = Task(NETWORK, LOSS, Shards(SHARDS.rows, 0.5, batch_size=16, shards=3, seed=7))
    with make(TASK, 2) as some, make(other, 2) as others:
        for step in (0, 1):
            assert total(some.gradients(step), TASK) == expected(TASK, step)
            assert total(others.gradients(step), other) == expected(other, step)


def test_while_nothing_happens_there_is_nothing_to_wait_for_and_nothing_to_tell(make: Make, exchange: str) -> None:
    kinds = {SHARED: (SHARED, SHARED), OBJECTS: (OBJECTS, OBJECTS), MIXED: (SHARED, OBJECTS)}
    with make(TASK, 2) as workers:
        joined = [Joined(number, kind) for number, kind in enumerate(kinds.get(exchange, ()))]
        assert sorted(workers.changes(), key=lambda change: change.worker) == joined
        assert workers.shared() == sum(change.exchange == SHARED for change in joined)
        assert workers.wait(0)
        workers.gradients(0)
        workers.evaluate()
        assert workers.ready() == 2
        assert not workers.changes()


def test_data_may_be_mapped_from_a_file_and_read_only(make: Make, tmp_path: Path) -> None:
    np.save(tmp_path / "inputs.npy", INPUTS)
    np.save(tmp_path / "targets.npy", TARGETS)
    data = Data(*(np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("inputs", "targets")))
    with make(TASK, 1, data) as workers:
        assert total(workers.gradients(1), TASK) == expected(TASK, 1)
        assert total(workers.evaluate(), TASK) == evaluated(TASK)


def test_what_the_trainer_writes_between_two_steps_is_what_workers_read(make: Make) -> None:
    with make(TASK, 2) as workers:
        for step in range(6):
            blocks = workers.gradients(step)
            answer = total(blocks, TASK)
            assert answer == expected(TASK, step, workers.params)
            for block in blocks:  # as the trainer does, who adds them up in place
                block.total.vector[:] = np.nan
            workers.params[:] = PARAMS * np.float32(step)
        assert total(workers.evaluate(), TASK) == evaluated(TASK, workers.params)


def test_in_double_precision(make: Make) -> None:
    params = PARAMS.astype(np.float64) / 3
    with make(TASK, 2, dtype=np.float64) as workers:
        workers.params[:] = params
        for step in (0, 3):
            assert total(workers.gradients(step), TASK) == expected(TASK, step, params)
        assert total(workers.evaluate(), TASK) == evaluated(TASK, params)


def asked(workers: ClosingWorkers) -> object:
    """An evaluation, or nothing while too few workers are there."""
    with suppress(TooFewWorkers):
        return total(workers.evaluate(), TASK)
    return workers.wait(0.1)


def test_a_mistake_in_the_numerics_is_raised(make: Make) -> None:
    """It is no worker's fault: another would make it again."""
    with make(BrokenTask(NETWORK, LOSS, SHARDS), 2) as workers:
        workers.changes()
        for _ in range(2):
            with pytest.raises(ZeroDivisionError, match="a mistake in shard"):
                workers.gradients(0)
            until(lambda: asked(workers) == evaluated(TASK))
        assert all(isinstance(change, Joined) for change in workers.changes())
