"""What can happen to workers that are processes, and how it ends."""

import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import posix_ipc
import pytest
import ray

from service.cluster.cluster import ClusterError
from service.cluster.ray_cluster import RayCluster
from service.cluster.ray_workers import Patience, RayWorkers
from service.cluster.workers import Joined, Lost, TooFewWorkers, WorkersError
from tests.contract.conftest import PREFIX, SLOTS, left_over
from tests.contract.tasks import (
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
from tests.contract.working import MIXED, OBJECTS, SHARED, evaluated, expected, process, stored, total, working
from worker.blocks import Block
from worker.layers import Dense
from worker.losses import MeanSquaredError
from worker.network import Network
from worker.shards import Shards
from worker.task import Data, Task

pytestmark = pytest.mark.system

BOTH = pytest.mark.parametrize("exchange", [SHARED, OBJECTS])
HASTY = Patience(slow_factor=2.0, slow_seconds=0.3)


@pytest.fixture
def held(tmp_path: Path) -> HeldTask:
    """A task that computes what TASK does, when it is let."""
    return HeldTask(NETWORK, LOSS, SHARDS, tmp_path)


def forget(task: HeldTask) -> None:
    """Forgets who has begun so far."""
    for file in task.directory.glob("began-*"):
        file.unlink()


@contextmanager
def at_step(task: HeldTask, workers: RayWorkers, count: int) -> Iterator[tuple[set[int], Future[Sequence[Block]]]]:
    """Inside, `count` workers are in the middle of step 1; gives their processes, and what will come of it."""
    workers.gradients(0)
    workers.changes()
    forget(task)
    task.hold.touch()
    with ThreadPoolExecutor(1) as thread:
        try:
            step = thread.submit(workers.gradients, 1)
            until(lambda: len(task.began()) == count)
            yield task.began(), step
        finally:
            task.hold.unlink(missing_ok=True)


def is_alive(process: int) -> bool:
    with suppress(OSError):
        return ") Z " not in Path(f"/proc/{process}/stat").read_text()
    return False


@contextmanager
def stopped(process: int) -> Iterator[None]:
    """Inside, a process does nothing."""
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)


@BOTH
def test_a_worker_killed_in_a_step_costs_a_recomputation(crew: list[Any], held: HeldTask, exchange: str) -> None:
    with working(crew, held, 2, exchange) as workers:
        with at_step(held, workers, 2) as (processes, step):
            os.kill(min(processes), signal.SIGKILL)
            until(lambda: not is_alive(min(processes)))
            held.hold.unlink()
            assert total(step.result(SECONDS), TASK) == expected(TASK, 1)
        changes = list(workers.changes())
        while len(changes) < 2 or workers.ready() < 2:
            assert total(workers.gradients(2), TASK) == expected(TASK, 2)
            changes += workers.changes()
        lost, joined = changes
        assert lost == Lost(joined.worker, "its process ended")
        assert joined == Joined(joined.worker, exchange)


def test_the_death_of_a_worker_is_known_at_once(crew: list[Any], held: HeldTask) -> None:
    """By its lock, where Ray itself takes a second."""
    with working(crew, held, 2) as workers, at_step(held, workers, 2) as (processes, step):
        os.kill(min(processes), signal.SIGKILL)
        killed = time.monotonic()
        held.hold.unlink()
        step.result(SECONDS)
        assert time.monotonic() - killed < 0.8


@BOTH
def test_a_worker_killed_between_steps(crew: list[Any], exchange: str) -> None:
    """Ray has started it again before anyone asks: the new process knows nothing of the job."""
    crew_member = crew[-1]
    with working(crew, TASK, 1, exchange) as workers:
        workers.changes()
        before = process(crew_member)
        os.kill(before, signal.SIGKILL)
        until(lambda: process(crew_member) != before)
        with pytest.raises(TooFewWorkers):
            workers.evaluate()
        assert workers.changes() == [Lost(0, "its process ended")]
        assert workers.wait(SECONDS)
        assert total(workers.gradients(5), TASK) == expected(TASK, 5)


@BOTH
def test_all_workers_killed(crew: list[Any], held: HeldTask, exchange: str) -> None:
    """The step can't be finished; asked again once a worker is back, it is the same step."""
    with working(crew, held, 2, exchange) as workers:
        with at_step(held, workers, 2) as (processes, step):
            for worker in processes:
                os.kill(worker, signal.SIGKILL)
            with pytest.raises(TooFewWorkers):
                step.result(SECONDS)
        assert workers.ready() == 0
        assert {change.worker for change in workers.changes() if isinstance(change, Lost)} == {0, 1}
        assert workers.wait(SECONDS)
        assert workers.ready() >= 1
        until(lambda: total(workers.gradients(1), TASK) == expected(TASK, 1) and workers.ready() == 2)
        assert {change.worker for change in workers.changes() if isinstance(change, Joined)} == {0, 1}
        assert not held.began() <= processes


def test_with_fewer_than_the_least_there_are_too_few(crew: list[Any], held: HeldTask) -> None:
    """But the step in which one is lost is finished."""
    with working(crew, held, 2, fewest=2) as workers:
        with at_step(held, workers, 2) as (processes, step):
            os.kill(min(processes), signal.SIGKILL)
            held.hold.unlink()
            assert total(step.result(SECONDS), TASK) == expected(TASK, 1)
        with pytest.raises(TooFewWorkers):
            workers.gradients(2)
        assert not workers.wait(0.01)
        assert workers.wait(SECONDS)
        assert total(workers.gradients(2), TASK) == expected(TASK, 2)


@pytest.mark.parametrize("exchange", [SHARED, MIXED, OBJECTS])
def test_a_slow_worker_is_overtaken_and_takes_part_again(crew: list[Any], held: HeldTask, exchange: str) -> None:
    """What it writes late, of an old step and with new parameters, is read by nobody."""
    with working(crew, held, 3, exchange, patience=HASTY) as workers:
        with at_step(held, workers, 3) as (processes, step):
            held.hold.unlink()
            step.result(SECONDS)
        slow = max(processes)
        with stopped(slow):
            forget(held)
            for number in (2, 3):
                assert total(workers.gradients(number), TASK) == expected(TASK, number)
            assert slow not in held.began()
            # It goes on now, in the middle of the order that it was given for step 2.
            workers.params[:] = PARAMS[::-1]
        for number in range(4, 30):
            assert total(workers.gradients(number), TASK) == expected(TASK, number, PARAMS[::-1])
        until(lambda: workers.evaluate() and workers.gradients(30) and workers.ready() == 3)
        forget(held)
        until(lambda: total(workers.gradients(31), TASK) == expected(TASK, 31, PARAMS[::-1]) and slow in held.began())
        assert not workers.changes()


def test_an_idle_worker_that_comes_late_still_takes_the_shards_of_a_slow_one(crew: list[Any], held: HeldTask) -> None:
    """When the order is found to be slow, nobody is idle: the other one is slow too, but not for ever."""
    with (
        working(crew, held, 2, patience=HASTY) as workers,
        at_step(held, workers, 2) as (processes, step),
        stopped(max(processes)),
    ):
        time.sleep(1.0)
        held.hold.unlink()
        assert total(step.result(20), TASK) == expected(TASK, 1)


@BOTH
def test_a_worker_that_does_not_answer_is_replaced(crew: list[Any], held: HeldTask, exchange: str) -> None:
    patience = Patience(HASTY.slow_factor, HASTY.slow_seconds, answer_seconds=2.0)
    with working(crew, held, 2, exchange, patience=patience) as workers:
        with at_step(held, workers, 2) as (processes, step):
            held.hold.unlink()
            step.result(SECONDS)
        hung = max(processes)
        with stopped(hung):
            until(lambda: total(workers.gradients(2), TASK) == expected(TASK, 2) and workers.ready() == 1)
            (lost,) = workers.changes()
            assert lost == Lost(lost.worker, "did not answer within 2 seconds", "too_slow")
            until(lambda: not is_alive(hung))
        until(lambda: total(workers.gradients(3), TASK) == expected(TASK, 3) and workers.ready() == 2)
        assert [change.worker for change in workers.changes()] == [lost.worker]


def test_lending_and_taking_away_between_steps(crew: list[Any]) -> None:
    actors = dict(enumerate(reversed(crew[-3:])))
    with working(crew, TASK, 3) as workers:
        workers.changes()

        def is_done_by(count: int) -> bool:
            return total(workers.gradients(1), TASK) == expected(TASK, 1) and workers.ready() == count

        for numbers in ((0,), (0, 1, 2), (0, 2), (0, 1), (0, 1, 2)):
            workers.lend({number: actors[number] for number in numbers})
            until(partial(is_done_by, len(numbers)))
        # Another worker under the same number.
        workers.lend({0: actors[1], 1: actors[0], 2: actors[2]})
        until(partial(is_done_by, 3))
        assert all(isinstance(change, Joined) for change in workers.changes())


@pytest.mark.parametrize("exchange", [SHARED, MIXED, OBJECTS])
def test_a_job_that_ends_leaves_nothing_and_its_workers_serve_the_next_at_once(crew: list[Any], exchange: str) -> None:
    for _ in range(3):
        began = time.monotonic()
        with working(crew, TASK, 2, exchange) as workers:
            assert total(workers.gradients(0), TASK) == expected(TASK, 0)
            assert time.monotonic() - began < 2
            assert all(isinstance(change, Joined) for change in workers.changes())
        assert not left_over()
    until(lambda: not any(maps_shared_memory(process(actor)) for actor in crew))


def maps_shared_memory(worker: int) -> bool:
    return PREFIX in Path(f"/proc/{worker}/maps").read_text()


def test_a_worker_is_taken_over_from_a_job_whose_trainer_died(crew: list[Any]) -> None:
    """Nobody told it to leave. What that job still has to say reaches the next one no more."""
    with working(crew, TASK, 2) as abandoned:
        assert abandoned.gradients(0)
        crew.extend(lent := [member.actor for member in abandoned._members.values()])
        with working(crew, TASK, 2) as workers:
            for actor in lent:
                actor.leave.remote(abandoned._job)
            for step in range(20):
                assert total(workers.gradients(step), TASK) == expected(TASK, step)
            assert workers.ready() == 2
        del crew[-2:]


def test_a_foreign_segment_is_not_attached_to(crew: list[Any]) -> None:
    """One that took the name, without the token: the worker gets its parameters by Ray objects instead."""
    prefix = f"{PREFIX}foreign-"
    workers = RayWorkers(
        TASK, (stored(np.zeros((120, 6), np.float32)), stored(np.zeros(120, int))), (1, 1), prefix, HASTY
    )
    (path,) = (p for p in Path("/dev/shm").glob(f"{prefix}*"))  # noqa: S108
    size = path.stat().st_size
    path.unlink()
    foreign = posix_ipc.SharedMemory(f"/{path.name}", posix_ipc.O_CREX, mode=0o600, size=size)
    foreign.close_fd()
    workers.lend({0: crew[0]})
    try:
        assert workers.wait(SECONDS)
        assert workers.changes() == [Joined(0, OBJECTS)]
    finally:
        workers.close()


def test_workers_that_find_no_room_are_not_waited_for(cluster: RayCluster, crew: list[Any]) -> None:
    pending = [cluster.borrow() for _ in range(2)]
    columns = (stored(np.ones((120, 6), np.float32)), stored(np.ones(120, int)))
    workers = RayWorkers(TASK, columns, (1, SLOTS + 2), f"{PREFIX}room-", HASTY)
    workers.lend(dict(enumerate([*pending, *crew])))
    until(lambda: workers.wait(0.1) and workers.gradients(0) and workers.ready() == SLOTS)
    workers.close()
    for actor in pending:
        ray.kill(actor)
    with working(crew, TASK, SLOTS) as others:
        assert total(others.gradients(0), TASK) == expected(TASK, 0)


def test_workers_that_cannot_join_are_told_of_at_once(crew: list[Any]) -> None:
    with (
        pytest.raises(WorkersError, match="a worker can't be started"),
        working(crew, UnreadableTask(NETWORK, LOSS, SHARDS), 2),
    ):
        pytest.fail("there are no workers")
    with working(crew, TASK, 2) as workers:
        assert total(workers.evaluate(), TASK) == evaluated(TASK)


@BOTH
def test_workers_share_one_copy_of_the_data(crew: list[Any], exchange: str) -> None:
    """Views of Ray's store are plain arrays that can't be written."""
    with working(crew, LookingTask(NETWORK, LOSS, SHARDS), 2, exchange) as workers:
        _, sums = total(workers.evaluate(), TASK)
        assert (sums.scores["accuracy"].tolist(), sums.count) == ([7, 7], 7)


def free_memory() -> float:
    """Bytes that are free in Ray's store."""
    return float(ray.available_resources()["object_store_memory"])  # type: ignore[no-untyped-call]


def test_the_memory_of_a_step_is_given_back(crew: list[Any]) -> None:
    """Each step moves 12 MB, 480 MB in all; meanwhile Ray's store holds what a few steps need."""
    network = Network((Dense(1000),), (1000,))
    data = Data(np.ones((8, 1000), np.float32), np.ones((8, 1000), np.float32))
    task = Task(network, MeanSquaredError(), Shards(8, 0.0, batch_size=8, shards=2, seed=1))
    with working(crew, task, 1, OBJECTS, data=data) as workers:
        free = free_memory()
        for step in range(40):
            workers.gradients(step)
        until(lambda: free_memory() > free - 100e6)


def test_a_cluster_that_nobody_answers_for() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and not listened at
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ClusterError, match=f"can't join the Ray cluster at {address}: .*refused"):
            RayCluster(address, 1, PREFIX)
