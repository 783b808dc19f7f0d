"""Idle workers that help with rows of somebody who has no job: the same bits, and no job waits for it."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.cluster.ray_cluster import RayCluster
from service.models.spreading import WORTH_SECONDS, spread
from tests.contract.tasks import FEATURES, NETWORK, PARAMS, SECONDS, TASK, until
from tests.contract.working import expected, process, total, working
from worker.arrays import Array
from worker.passes import Prediction

pytestmark = pytest.mark.system

SIZE, PARTS = 100, 8
ROWS = np.random.default_rng(8).standard_normal((SIZE * PARTS - 1, FEATURES)).astype(np.float32)
STARTS = range(0, len(ROWS), SIZE)
ALONE = [NETWORK.forward(PARAMS, ROWS[start : start + SIZE])[0].tobytes() for start in STARTS]


@dataclass(frozen=True, eq=False)
class Held(Prediction):
    """Elsewhere it takes until the file "hold" in its directory is gone; here longer than it is worth.

    The last part, which nobody else is asked for, takes until the file "last" is gone.
    """

    directory: Path
    home: int

    def __call__(self, rows: Array) -> Array:
        if os.getpid() == self.home:
            time.sleep(2 * WORTH_SECONDS)
            if len(rows) < SIZE:
                until(lambda: not self.last.exists())
        else:
            (self.directory / f"began-{os.getpid()}").touch()
            until(lambda: not self.hold.exists())
        return super().__call__(rows)

    @property
    def hold(self) -> Path:
        """The file that keeps workers from going on."""
        return self.directory / "hold"

    @property
    def last(self) -> Path:
        """The file that keeps this process from coming to an end."""
        return self.directory / "last"

    def began(self) -> set[int]:
        """The processes that were asked."""
        return {int(path.name.removeprefix("began-")) for path in self.directory.glob("began-*")}


@pytest.fixture
def idle(cluster: RayCluster, crew: list[Any]) -> Iterator[set[int]]:
    """The processes of two workers that no job has."""
    workers = [crew.pop() for _ in range(2)]
    processes = {process(worker) for worker in workers}
    for worker in workers:
        cluster.give_back(worker, "none")
    yield processes
    crew += [cluster.borrow() for _ in workers]


@pytest.fixture
def held(tmp_path: Path) -> Held:
    return Held(NETWORK, PARAMS, tmp_path, os.getpid())


def predicted(cluster: RayCluster, work: Prediction) -> list[bytes]:
    def part_at(start: int) -> Array:
        return ROWS[start : start + SIZE]

    return [made.tobytes() for made in spread(work, STARTS, part_at, cluster.help_with, threading.Event())]


def test_idle_workers_help_with_the_same_bits(cluster: RayCluster, idle: set[int], held: Held) -> None:
    while held.began() != idle:
        answers = [cluster.help_with(held, ROWS[:SIZE]) for _ in idle]
        assert [answer.result(SECONDS).tobytes() for answer in answers if answer] == [ALONE[0]] * len(idle)
    assert predicted(cluster, held) == ALONE


def test_a_worker_killed_while_it_helps_costs_a_recomputation(cluster: RayCluster, idle: set[int], held: Held) -> None:
    held.hold.touch()
    held.last.touch()
    with ThreadPoolExecutor(1) as thread:
        rows = thread.submit(predicted, cluster, held)
        until(lambda: held.began() == idle)
        os.kill(min(idle), signal.SIGKILL)
        held.last.unlink()
        # The other one is stuck with its part, which is computed here too.
        assert rows.result(SECONDS) == ALONE
    held.hold.unlink()

    def helps_again() -> bool:
        assert predicted(cluster, held) == ALONE
        return len(held.began() - idle) == 1

    until(helps_again)  # once Ray has started it anew


def test_a_job_gets_workers_that_help_at_once(cluster: RayCluster, idle: set[int], held: Held) -> None:
    held.hold.touch()
    assert predicted(cluster, held) == ALONE
    until(lambda: held.began() == idle)
    lent = [cluster.borrow() for _ in idle]
    assert {process(worker) for worker in lent} == idle
    assert cluster.help_with(held, ROWS[:SIZE]) is None
    with working(lent, TASK, 2) as workers:
        assert total(workers.gradients(1), TASK) == expected(TASK, 1)
    held.hold.unlink()
    for worker in lent:
        cluster.give_back(worker, "none")
