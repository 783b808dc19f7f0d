"""A trainer's life, as a test sees it: what it told, and where it ended."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from safetensors.numpy import load_file

from service.cluster.local_workers import LocalWorkers
from service.cluster.workers import Workers
from service.jobs.events import EpochCompleted, Event, Progress
from service.jobs.spec import JobSpec
from service.training.checkpoints import Checkpoints
from service.training.outbox import Outbox
from service.training.timing import Timing
from service.training.trainer import Policy, Trainer
from service.training.wishes import Wishes
from tests.unit.service.examples import DATA, INPUTS, SPEC, TARGETS, task
from worker.task import Data

NEVER = Policy(checkpoint_seconds=1e9, wait_seconds=5.0)
ALWAYS = Policy(checkpoint_seconds=0.0, wait_seconds=5.0)
STEPS = 12


class Told(Outbox):
    """An outbox that keeps what went through it, and tells a test of every step."""

    def __init__(self, at_step: Callable[[int], None]) -> None:
        self.at_step: Callable[[int], None] = lambda _: None
        super().__init__()
        self.at_step = at_step
        self.steps: list[Progress] = []
        self.events: list[Event] = []

    @property
    def newest(self) -> tuple[int, float]:
        return self._newest

    @newest.setter
    def newest(self, newest: tuple[int, float]) -> None:
        self._newest = newest
        if newest[0]:
            self.steps.append(self.progress())
            self.at_step(newest[0])

    def post(self, event: Event) -> None:
        self.events.append(event)
        super().post(event)


@dataclass
class Run:
    """One trainer's life, and what it told."""

    directory: Path
    policy: Policy = NEVER
    of: JobSpec = SPEC
    data: Data = DATA
    stop: threading.Event = field(default_factory=threading.Event)
    at_step: Callable[[int], None] = lambda _: None
    stop_after: int | None = None
    acknowledges: bool = True
    """Whether the service takes every event at once; else it never hears of any."""
    wishes: Wishes = field(default_factory=Wishes)
    rate_scale: float = 1.0
    best_loss: float = np.inf

    def __post_init__(self) -> None:
        self.outbox = Told(self._at_step)

    def train(self, workers: Workers | None = None) -> bytes:
        """The parameters' bits."""
        workers = workers or LocalWorkers(task(self.of), self.data, self.of.workers, self.of.precision.dtype)
        checkpoints = Checkpoints(self.directory, self.of.keep_last, keep_best=self.of.keep_best)
        self.timing = Timing()
        given = (self.policy, self.outbox, self.stop, self.timing, self.wishes)
        trainer = Trainer(self.of, task(self.of), workers, checkpoints, *given)
        state, epoch = trainer.train()
        assert epoch.epoch == self.of.epochs or self.of.early_stopping
        self.result, self.stopped_early = epoch, trainer.stopped_early
        self.rate_scale, self.best_loss = state.rate_scale, state.best_loss
        return state.params.tobytes()

    @property
    def events(self) -> list[Event]:
        return self.outbox.events

    @property
    def progress(self) -> list[Progress]:
        return self.outbox.steps

    def of_kind(self, *kinds: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kinds)]

    @property
    def epochs(self) -> list[EpochCompleted]:
        """The epochs, but for the time they took."""
        return [replace(e, duration_seconds=0.0) for e in self.events if isinstance(e, EpochCompleted)]

    def _at_step(self, step: int) -> None:
        if self.acknowledges:
            self.outbox.take(len(self.events), 0.0)
        if step == self.stop_after:
            self.stop.set()
        self.at_step(step)


def in_memory() -> TemporaryDirectory[str]:
    """Where syncing takes no time."""
    return TemporaryDirectory(dir="/dev/shm")


def undisturbed(of: JobSpec = SPEC, data: Data = DATA) -> tuple[bytes, list[EpochCompleted]]:
    with in_memory() as directory:
        run = Run(Path(directory), of=of, data=data)
        return run.train(), run.epochs


BITS, EPOCHS = undisturbed()


class Crash(Exception):
    pass


def crash_at(step: int) -> Callable[[int], None]:
    def at_step(reached: int) -> None:
        if reached == step:
            raise Crash

    return at_step


def finite(directory: Path) -> bool:
    """Whether all that lies on the disk is."""
    return all(np.isfinite(v).all() for path in directory.iterdir() for v in load_file(path).values())


def broken_validation() -> Data:
    """Training rows are well while the held-out ones are not."""
    inputs = INPUTS.copy()
    inputs[task().shards.validation(0)] = 3e38
    return Data(inputs, TARGETS)
