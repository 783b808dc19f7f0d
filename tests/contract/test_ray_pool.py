"""What can happen to workers that are processes, and how it ends."""

import os
import signal
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import ray

from service.cluster.pool import Joined, Lost, NoWorkers, PoolError, Workers
from service.cluster.ray_pool import RayPool
from tests.contract.conftest import SLOTS
from tests.contract.tasks import (
    DATA,
    LOSS,
    NETWORK,
    PARAMS,
    SECONDS,
    SHARDS,
    TASK,
    HeldTask,
    LookingTask,
    UnreadableTask,
    until,
)
from tests.contract.test_pool import bits, gradients
from worker.gradient import Gradient
from worker.layers import Dense
from worker.losses import MeanSquaredError
from worker.network import Network
from worker.shards import Shards
from worker.task import Data, Task

pytestmark = pytest.mark.system


@pytest.fixture
def held(tmp_path: Path) -> HeldTask:
    """A task that computes what TASK does, when it is let."""
    return HeldTask(NETWORK, LOSS, SHARDS, tmp_path)


@contextmanager
def at_step(task: HeldTask, workers: Workers, count: int) -> Iterator[tuple[set[int], Future[Sequence[Gradient]]]]:
    """Inside, `count` workers are in the middle of step 1; gives their processes, and what will come of it."""
    until(lambda: workers.gradients(PARAMS, 0) and workers.ready() == count)
    workers.changes()
    for file in task.directory.iterdir():
        file.unlink()
    task.hold.touch()
    with ThreadPoolExecutor(1) as thread:
        try:
            step = thread.submit(workers.gradients, PARAMS, 1)
            until(lambda: len(task.began()) == count)
            yield task.began(), step
        finally:
            task.hold.unlink(missing_ok=True)


def is_alive(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


def free_memory() -> float:
    """Bytes that are free in Ray's store."""
    return float(ray.available_resources()["object_store_memory"])  # type: ignore[no-untyped-call]


def test_a_worker_killed_in_a_step_costs_a_recomputation(ray_pool: RayPool, held: HeldTask) -> None:
    with ray_pool.open(held, DATA, 2) as workers:
        with at_step(held, workers, 2) as (processes, step):
            os.kill(min(processes), signal.SIGKILL)
            until(lambda: not is_alive(min(processes)))
            held.hold.unlink()
            assert bits(step.result(SECONDS)) == bits(gradients(TASK, 1))
        (lost,) = workers.changes()
        assert isinstance(lost, Lost)
        assert lost.reason == "its process ended"
        assert workers.ready() == 1
        until(lambda: bits(workers.gradients(PARAMS, 2)) == bits(gradients(TASK, 2)) and workers.ready() == 2)
        assert workers.changes() == [Joined(lost.worker)]


def test_a_worker_killed_between_steps(ray_pool: RayPool, held: HeldTask) -> None:
    with ray_pool.open(held, DATA, 1) as workers:
        with at_step(held, workers, 1) as ((process,), step):
            held.hold.unlink()
            step.result(SECONDS)
        os.kill(process, signal.SIGKILL)
        until(lambda: not is_alive(process))
        with pytest.raises(NoWorkers):
            workers.evaluate(PARAMS)
        assert workers.wait(SECONDS)
        assert bits(workers.gradients(PARAMS, 5)) == bits(gradients(TASK, 5))


def test_all_workers_killed(ray_pool: RayPool, held: HeldTask) -> None:
    """The step can't be finished; asked again once a worker is back, it is the same step."""
    with ray_pool.open(held, DATA, 2) as workers:
        with at_step(held, workers, 2) as (processes, step):
            for process in processes:
                os.kill(process, signal.SIGKILL)
            with pytest.raises(NoWorkers):
                step.result(SECONDS)
        assert workers.ready() == 0
        assert {change.worker for change in workers.changes() if isinstance(change, Lost)} == {0, 1}
        assert workers.wait(SECONDS)
        assert workers.ready() >= 1
        until(lambda: bits(workers.gradients(PARAMS, 1)) == bits(gradients(TASK, 1)) and workers.ready() == 2)
        assert set(workers.changes()) == {Joined(0), Joined(1)}
        assert not held.began() <= processes


def test_a_worker_that_stops_answering_is_lost_and_replaced(
    ray_pool: RayPool, held: HeldTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_pool, "answer_seconds", 4.0)
    with ray_pool.open(held, DATA, 2) as workers:
        with at_step(held, workers, 2) as (processes, step):
            stopped = max(processes)
            os.kill(stopped, signal.SIGSTOP)
            held.hold.unlink()
            assert bits(step.result(SECONDS)) == bits(gradients(TASK, 1))
        (lost,) = workers.changes()
        assert isinstance(lost, Lost)
        assert lost.reason == "did not answer within 4 seconds"
        until(lambda: workers.gradients(PARAMS, 2) and workers.ready() == 2)
        assert workers.changes() == [Joined(lost.worker)]
        assert not is_alive(stopped)


@pytest.mark.parametrize("error", [None, KeyError("a job that fails")], ids=["in peace", "by an error"])
def test_no_worker_outlives_its_job(ray_pool: RayPool, held: HeldTask, error: Exception | None) -> None:
    with suppress(KeyError), ray_pool.open(held, DATA, 2) as workers:
        until(lambda: workers.gradients(PARAMS, 0) and len(held.began()) == 2)
        if error:
            raise error
    until(lambda: not any(map(is_alive, held.began())))


def test_a_job_that_ends_in_the_middle_of_a_step(ray_pool: RayPool, held: HeldTask) -> None:
    with ExitStack() as stack:
        with ray_pool.open(held, DATA, 2) as workers:
            processes, step = stack.enter_context(at_step(held, workers, 2))
        until(lambda: not any(map(is_alive, processes)))
        # Workers that were ended, not lost: nothing brings them back, and whoever still asks is told.
        with pytest.raises((NoWorkers, PoolError)):
            step.result(SECONDS)


def test_workers_that_find_no_room_are_not_waited_for_and_leave_nothing_behind(
    ray_pool: RayPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ray_pool.open(TASK, DATA, SLOTS + 2) as workers:
        until(lambda: bits(workers.gradients(PARAMS, 0)) == bits(gradients(TASK, 0)) and workers.ready() == SLOTS)
        monkeypatch.setattr(ray_pool, "start_seconds", 0.5)
        with (
            pytest.raises(PoolError, match=r"none of the 2 workers started within 0\.5 seconds"),
            ray_pool.open(TASK, DATA, 2),
        ):
            pytest.fail("there is no room for them")
    monkeypatch.undo()
    with ray_pool.open(TASK, DATA, SLOTS) as workers:
        until(lambda: workers.gradients(PARAMS, 0) and workers.ready() == SLOTS)


def test_workers_that_cannot_start_are_told_of_at_once(ray_pool: RayPool) -> None:
    with (
        pytest.raises(PoolError, match="no worker can be started"),
        ray_pool.open(UnreadableTask(NETWORK, LOSS, SHARDS), DATA, 2),
    ):
        pytest.fail("there are no workers")


def test_workers_share_one_copy_of_the_data(ray_pool: RayPool, tmp_path: Path) -> None:
    """A view of Ray's store is a plain array that can't be written, even if the data was mapped from a file."""
    np.save(tmp_path / "inputs.npy", DATA.inputs)
    data = Data(np.load(tmp_path / "inputs.npy", mmap_mode="c"), DATA.targets)
    with ray_pool.open(LookingTask(NETWORK, LOSS, SHARDS), data, 1) as workers:
        assert workers.evaluate(PARAMS)[0].scores == {"plain": True, "writeable": False}


def test_the_memory_of_a_step_is_given_back(ray_pool: RayPool) -> None:
    """Each step moves 12 MB, 480 MB in all; meanwhile Ray's store holds what a few steps need."""
    network = Network((Dense(1000),), (1000,))
    data = Data(np.ones((8, 1000), np.float32), np.ones((8, 1000), np.float32))
    task = Task(network, MeanSquaredError(), Shards(8, 0.0, batch_size=8, shards=2, seed=1))
    params = network.initial(seed=2)
    with ray_pool.open(task, data, 1) as workers:
        free = free_memory()
        for step in range(40):
            workers.gradients(params, step)
        until(lambda: free_memory() > free - 100e6)


def test_a_cluster_that_nobody_answers_for() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and not listened at
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(PoolError, match=f"can't join the Ray cluster at {address}: .*refused"):
            RayPool(address, 1)
