"""Where a fault happens: a coordinator, a client of it, and the dice."""

import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos.coordinator import Coordinator, running, until
from tests.chaos.training import DIGITS, Client, Following, Yardstick, check_same

SHORTLY = 0.15
"""Up to so many seconds after the end of an epoch a fault happens: some are within a step, some between two."""


class Skipped(Exception):
    """A fault can't be made here; the message says why."""


@dataclass(frozen=True)
class Stage:
    """What a fault needs."""

    coordinator: Coordinator
    client: Client
    random: Random
    epochs: int
    yardstick: Yardstick | None
    """None where the job is to be the yardstick."""

    def job(self, **changes: Any) -> Following:
        """Starts the job that was measured undisturbed, with changes that may not change its result."""
        return self.client.create({**DIGITS, "epochs": self.epochs, **changes})

    def phase(self, job: Following) -> None:
        """Waits until some moment of a job's life."""
        if self.random.random() < 0.85:
            job.reach(self.random.randint(1, max(1, self.epochs // 2)))
        self.shortly()

    def shortly(self, most: float = SHORTLY) -> None:
        """Waits a little."""
        time.sleep(self.random.uniform(0, most))

    def pick_worker(self) -> int:
        """One of the worker processes, as soon as there are any."""
        return self.random.choice(until(self.coordinator.workers, "there is a worker"))

    def check_same(self, *jobs: Following) -> None:
        """Waits for the end of jobs, and raises NotSurvived unless they ended as if nothing had been."""
        assert self.yardstick is not None
        for job in jobs:
            check_same(job, self.yardstick)


@contextmanager
def stage(
    home: Path, random: Random, epochs: int, yardstick: Yardstick | None, data: Path | None = None
) -> Iterator[Stage]:
    """A stage with a coordinator that has the digits. In the end nothing of it may be left."""
    with running(home, data) as coordinator:
        client = Client(coordinator)
        client.upload_digits()
        yield Stage(coordinator, client, random, epochs, yardstick)


def send(number: signal.Signals, processes: Iterable[int]) -> None:
    """Sends processes a signal; one that has ended meanwhile is none's loss."""
    for process in processes:
        try:
            os.kill(process, number)
        except ProcessLookupError:
            continue
