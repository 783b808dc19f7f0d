"""What it costs a step to be seen: the health of the layers, and all that is counted and told.

One job's trainer, with real workers, takes turns of 256 steps with itself: as it is, without looks at the layers, and
besides counting and telling nothing. A process of its own, since Ray is started once a process:

    python -m benchmarks.eyes_cost '{"case": "small-adam", "rounds": 60}'
"""

import json
import os
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

import ray
from threadpoolctl import threadpool_limits

from benchmarks.cases import CASES
from benchmarks.contenders import ROOT
from benchmarks.exchange_cost import START_SECONDS, nodes
from benchmarks.tasks import mlp_task, optimizer_of, synthetic
from service.cluster.ray_workers import Patience, RayWorkers
from service.cluster.workers import Spent
from service.jobs.spec import JobSpec
from service.training.checkpoints import Checkpoints
from service.training.outbox import Outbox
from service.training.pace import MOST_UPDATES, Pace
from service.training.runner import NEWS_SECONDS
from service.training.state import TrainingState
from service.training.timing import Timing
from service.training.trainer import Policy, Stopped, Trainer
from worker import actor
from worker.actor import BlockRefs
from worker.losses import SoftmaxCrossEntropy

FIRST = 100 * MOST_UPDATES
"""The step to begin with: looks are as far apart by then as they ever will be, once in MOST_UPDATES."""

WARM_ROUNDS = 5
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
    """Begins in the middle of a long job."""

    rounds: int

    def _first_state(self) -> TrainingState:
        state = super()._first_state()
        state.step = FIRST
        return state

    def _take_steps(self) -> Any:
        self._paces = (self._pace, _NoLooks(self.spec, self.task.shards.steps_per_epoch))
        self._timings = (self.timing, _NoTiming())
        self.seconds: dict[Seen, list[float]] = {seen: [] for seen in Seen}
        for number in range(WARM_ROUNDS + self.rounds):
            for place in range(len(Seen)):
                seen = Seen((number + place) % len(Seen))
                self._pace = self._paces[seen is not Seen.EVERYTHING]
                self.timing = self._timings[seen is Seen.NOTHING]
                self._end = self._state.step + MOST_UPDATES
                began = time.perf_counter()
                with suppress(_Enough):
                    self._silent_steps() if seen is Seen.NOTHING else super()._take_steps()
                self.seconds[seen].append(time.perf_counter() - began)
        raise Stopped

    def _silent_steps(self) -> None:
        while True:
            self._heed_wish()
            self._step()
            if self._state.step % self.task.shards.steps_per_epoch == 0:
                self._complete_epoch()
            if self.stop.is_set():
                raise Stopped

    def _step(self) -> float:
        if self._state.step == self._end:
            raise _Enough
        return super()._step()


class _NoLooks(Pace):
    def is_looked_at(self, step: int) -> bool:  # noqa: ARG002
        return False


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
