"""A trainer at work in a thread of its own, and what the service sees of it from outside.

The service asks now and then what is new; the trainer never waits for it. The same session runs within the service, in
tests, and in a process of its own, behind calls.
"""

import errno
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np

from service.cluster.workers import Workers, WorkersError
from service.jobs.events import EpochCompleted, Failed, LearningRateChanged, Progress, RateAsked
from service.jobs.spec import JobSpec
from service.log import Entry
from service.training.arrivals import Arrivals, Feed, Silent
from service.training.checkpoints import Checkpoints
from service.training.outbox import Outbox, Posted
from service.training.state import Diverged, Weightless
from service.training.timing import Timing
from service.training.trainer import Policy, Stopped, Trainer, WorkersLost
from service.training.wishes import Wishes
from worker.arrays import Array
from worker.task import Computation


@dataclass(frozen=True)
class Order:
    """What a trainer is to do."""

    job_id: str
    spec: JobSpec
    task: Computation
    checkpoints: Path
    policy: Policy
    rates: tuple[LearningRateChanged, ...] = ()
    """The learning rates that came to hold before."""
    asked: RateAsked | None = None
    """The one that was asked for last."""


@dataclass(frozen=True)
class Trained:
    """The job took all the steps that it was to take."""

    params: Array
    epoch: EpochCompleted
    """How the epoch went after which they were so."""
    reason: str = ""
    """Why, if it took fewer."""
    confusion: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class Halted:
    """The trainer was told to stop; the job can go on from its last checkpoint."""


@dataclass(frozen=True)
class Idle:
    """Nothing was sent to the job for long; it can go on from its last checkpoint."""

    reason: str


@dataclass(frozen=True)
class Gone:
    """The trainer was lost; the job can go on from its last checkpoint."""

    reason: str


INTERNAL = Failed("INTERNAL", "an error in the service itself; its log says more")


@dataclass(frozen=True)
class Broken:
    """The trainer met an error that its job has no part in. The report is for the service's log."""

    report: str
    failed: Failed = INTERNAL
    """What is told of it."""


Outcome: TypeAlias = Trained | Halted | Idle | Gone | Failed | Broken


@dataclass(frozen=True)
class News:
    """What a trainer has to tell."""

    posted: list[Posted]
    progress: Progress
    timing: Timing
    outcome: Outcome | None
    """How it ended; no news follow then."""
    logged: tuple[Entry, ...] = ()
    """What a trainer's own process has put into its log since."""


class Training(Protocol):
    """A trainer, as the service sees it."""

    @property
    def feed(self) -> Feed:
        """Where mini-batches go that a client sends. Of a job that gets none from there, nobody asks."""

    def news(self, acknowledged: int, timeout: float) -> News:
        """Events after number `acknowledged`, once there are any, or after `timeout` seconds."""

    def halt(self) -> None:
        """Has the trainer write a checkpoint and end."""

    def lend(self, workers: int) -> None:
        """Changes how many workers it has, from the next step on."""

    def ask(self, rate: RateAsked) -> None:
        """Asks for another learning rate, from one of the next steps on."""


class Session:
    """Runs a trainer in a thread. `make_workers` is called there, and what it gives is closed at the end."""

    def __init__(
        self, order: Order, make_workers: Callable[[], "ClosingWorkers"], arrivals: Arrivals | None = None
    ) -> None:
        self._order = order
        self._arrivals = arrivals
        self._make_workers = make_workers
        self._outbox = Outbox()
        self._timing = Timing()
        self._stop = threading.Event()
        self._wishes = Wishes(order.rates, order.asked)
        self._outcome: Outcome | None = None
        self._thread = threading.Thread(target=self._run, name=f"trainer-{order.job_id}", daemon=True)
        self._thread.start()

    def news(self, acknowledged: int, timeout: float) -> News:
        """What is new. See Training."""
        outcome = self._outcome  # before the events, so that an outcome comes with the last of them
        posted = self._outbox.take(acknowledged, 0.0 if outcome else timeout)
        self._timing.count()
        return News(posted, self._outbox.progress(), self._timing, outcome)

    def halt(self) -> None:
        """Has the trainer write a checkpoint and end."""
        self._stop.set()

    def ask(self, rate: RateAsked) -> None:
        """Asks for another learning rate."""
        self._wishes.rate = rate

    def _run(self) -> None:
        try:
            self._outcome = self._trained()
        except Exception:  # such as a log that can't be written, on a disk that is full
            self._outcome = Broken(traceback.format_exc())
        finally:
            self._outbox.close()
            if self._arrivals is not None:
                self._arrivals.close()

    def _trained(self) -> Outcome:
        order = self._order
        try:
            workers = self._make_workers()
            try:
                checkpoints = Checkpoints(order.checkpoints, order.spec.keep_last, keep_best=order.spec.keep_best)
                given = (order.policy, self._outbox, self._stop, self._timing, self._wishes, self._arrivals)
                trainer = Trainer(order.spec, order.task, workers, checkpoints, *given)
                state, epoch = trainer.train()
                return Trained(np.array(state.params), epoch, trainer.stopped_early, trainer.confusion)
            finally:
                workers.close()
        except Stopped:
            return Halted()
        except Silent:
            seconds = order.policy.silence_seconds
            return Idle(f"no mini-batch came for {seconds:g} seconds; goes on when a client sends the next one")
        except Diverged as error:
            return Failed("TRAINING_DIVERGED", str(error))
        except Weightless as error:
            return Failed("ROWS_WITHOUT_WEIGHT", str(error))
        except (WorkersLost, WorkersError) as error:
            return Failed("WORKERS_LOST", str(error))
        except OSError as error:
            return Broken(traceback.format_exc(), storage_failure(error))
        except Exception:
            return Broken(traceback.format_exc())


class ClosingWorkers(Workers, Protocol):
    """Workers that must be let go."""

    def close(self) -> None:
        """Lets them go."""


def storage_failure(error: OSError) -> Failed:
    """How a job ends whose files can't be read or written."""
    if error.errno == errno.ENOSPC:
        return Failed("STORAGE_FULL", "the disk is full; the last checkpoint before that is kept")
    return Failed("STORAGE_FAILED", "a file of the job can't be read or written; the service's log says more")
