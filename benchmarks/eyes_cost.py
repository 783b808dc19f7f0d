"""What it costs a step to be seen: the health of the layers, and all that is counted and told.

One job's trainer, with real workers, takes turns of 64 steps with itself: as it is, without looks at the layers, and
besides without counting and telling, so that not even what its workers say that they took is taken in. In one of
32 turns there is a look, so that it falls on one step of 2,048, as in a long job. A process of its own, since Ray is
started once a process:

    python -m benchmarks.eyes_cost '{"case": "small-adam", "rounds": 60}'
"""

import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import ray
from threadpoolctl import threadpool_limits

from benchmarks.cases import CASES
from benchmarks.contenders import ROOT
from benchmarks.exchange_cost import START_SECONDS, nodes
from benchmarks.tasks import mlp_task, optimizer_of, synthetic
from service.cluster.ray_workers import Patience, RayWorkers
from service.cluster.work import Spending
from service.cluster.workers import Spent
from service.jobs.spec import JobSpec
from service.training.checkpoints import Checkpoints
from service.training.outbox import Outbox
from service.training.pace import MOST_UPDATES, Pace
from service.training.runner import NEWS_SECONDS
from service.training.timing import Timing
from service.training.trainer import Policy, Stopped, Trainer
from worker import actor
from worker.actor import BlockRefs
from worker.losses import SoftmaxCrossEntropy

STEPS = 64
"""Of a turn: so few that whatever slows the machine for a second slows all that is compared."""

TURNS = MOST_UPDATES // STEPS
"""Of each, in a round, with a look in the middle of one."""

WARM_ROUNDS = 2
"""Rounds that don't count."""


@dataclass(frozen=True)
class Setting:
    """What is measured."""

    case: str = "small-adam"
    rounds: int = 60


@dataclass(frozen=True)
class Cost:
    """What a step takes longer, as shares of it: medians over rounds."""

    health: float
    """With looks at the layers, against none."""
    everything: float
    """With those, and all that is counted and told, against nothing of it."""
    step_seconds: float
    """Of a step with everything."""


class Seen(Enum):
    """How much is seen of a step."""

    EVERYTHING = 0
    NO_LOOKS = 1
    NOTHING = 2


class _Enough(Exception):
    """A turn is over."""


class _InTurns(Trainer):
    """Turns instead of a job."""

    rounds: int

    def _take_steps(self) -> Any:
        self._timings = (self.timing, _NoTiming())
        # In a fixed order each would always bear what the same one leaves behind.
        chance = random.Random(0)  # noqa: S311
        self.seconds: dict[Seen, list[float]] = {seen: [] for seen in Seen}
        for _ in range(WARM_ROUNDS + self.rounds):
            taken = dict.fromkeys(Seen, 0.0)
            for turn in range(TURNS):
                for seen in chance.sample(list(Seen), len(Seen)):
                    taken[seen] += self._turn(seen, has_look=seen is Seen.EVERYTHING and turn == TURNS // 2)
            for seen, seconds in taken.items():
                self.seconds[seen].append(seconds)
        raise Stopped

    def _turn(self, seen: Seen, *, has_look: bool) -> float:
        self.timing = self._timings[seen is Seen.NOTHING]
        self._end = self._state.step + STEPS
        self._look = self._end - STEPS // 2 if has_look else -1
        self._pace = _Pace(self.spec, self.task.shards.steps_per_epoch, look=self._look)
        began = time.perf_counter()
        with suppress(_Enough):
            if seen is Seen.NOTHING:
                with patch.object(Spending, "take_in", lambda *_, **__: None):
                    self._silent_steps()
            else:
                super()._take_steps()
        return time.perf_counter() - began

    def _silent_steps(self) -> None:
        while True:
            self._heed_wish()
            self._step()
            if self._state.step % self.task.shards.steps_per_epoch == 0:
                self._complete_epoch()
            stopping = self.stop.is_set()
            if stopping or time.monotonic() >= self._due:
                self._save(tell=stopping)
            if stopping:
                raise Stopped

    def _step(self) -> float:
        if self._state.step == self._end:
            raise _Enough
        return super()._step()


@dataclass(frozen=True)
class _Pace(Pace):
    """Has one look, or none."""

    look: int = -1

    def next_look(self, step: int) -> int:
        return self.look if step <= self.look else -1


class _NoTiming(Timing):
    def step(self, asking: float, spent: Spent, average: float, optimizer: float) -> None:
        """Counts nothing."""


def measure(setting: Setting) -> Cost:
    """Measures in a process of its own."""
    environment = dict(os.environ) | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "benchmarks.eyes_cost", json.dumps(asdict(setting))]
    result = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return Cost(**json.loads(result.stdout.splitlines()[-1]))


def main(setting: Setting) -> None:
    """Measures here, and prints it as a line of JSON."""
    threadpool_limits(1)
    case = CASES[setting.case]
    task = mlp_task(case, 2)
    with nodes(2):
        columns = tuple(BlockRefs((ray.put(column),), case.rows, 1 << 30) for column in synthetic(case))
        workers = RayWorkers(task, columns, (2, 2), f"chainrule-bench-{os.getpid()}-", Patience())
        worker: Any = actor.Worker
        workers.lend({number: worker.options(**actor.OPTIONS).remote() for number in range(2)})
        if not workers.wait(START_SECONDS):
            raise SystemExit("the workers did not start")
        seconds = _measured(setting, workers)
        workers.close()
    print(json.dumps(asdict(_cost(seconds))))


def _measured(setting: Setting, workers: RayWorkers) -> Mapping[Seen, list[float]]:
    case = CASES[setting.case]
    task = mlp_task(case, 2)
    of = JobSpec(
        "rows", "x", "y", 0.0, task.network.layers, SoftmaxCrossEntropy(), optimizer_of(case), case.learning_rate,
        epochs=1_000_000, batch_size=case.batch, shards=2, workers=2, seed=0, min_workers=2, max_workers=2,
    )  # fmt: skip
    with TemporaryDirectory() as directory:
        checkpoints, policy = Checkpoints(Path(directory), of.keep_last), Policy(checkpoint_seconds=1e9)
        trainer = _InTurns(of, task, workers, checkpoints, policy, Outbox(), threading.Event())
        trainer.rounds = setting.rounds
        threading.Thread(target=_ask, args=(trainer,), daemon=True).start()
        with suppress(Stopped):
            trainer.train()
        trainer.stop.set()
    return trainer.seconds


def _ask(trainer: Trainer) -> None:
    """What the service does while a job trains: it asks for what is new. A turn without anything to tell has none."""
    while not trainer.stop.wait(NEWS_SECONDS):
        if not isinstance(trainer.timing, _NoTiming):
            trainer.timing.count()
            trainer.outbox.progress()


def _cost(seconds: Mapping[Seen, list[float]]) -> Cost:
    taken = {seen: seconds[seen][WARM_ROUNDS:] for seen in Seen}

    def longer(one: Seen, other: Seen) -> float:
        return statistics.median(a / b - 1 for a, b in zip(taken[one], taken[other], strict=True))

    everything = Seen.EVERYTHING
    step = statistics.median(taken[everything]) / MOST_UPDATES
    return Cost(longer(everything, Seen.NO_LOOKS), longer(everything, Seen.NOTHING), step)


if __name__ == "__main__":
    main(Setting(**json.loads(sys.argv[1] if len(sys.argv) > 1 else "{}")))
