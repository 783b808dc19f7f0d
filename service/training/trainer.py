"""The trainer: one job's loop of steps.

Split, gather, average, step, record. It knows nothing of how shards are computed, of clients or of metrics: it reports
what happened, and others make of it what they want.
"""

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from service.cluster.pool import Joined, Lost, NoWorkers, Workers
from service.jobs.job import (
    CheckpointSaved,
    EpochCompleted,
    Event,
    Progress,
    Running,
    StateChanged,
    WaitingForWorkers,
    WorkerJoined,
    WorkerLost,
)
from service.jobs.spec import JobSpec
from service.training.checkpoints import Checkpoints
from service.training.state import ADVICE, Diverged, TrainingState, apply, average, check_applied, check_finite, no_sums
from service.training.timing import Throughput, Timing
from worker.arrays import Array
from worker.gradient import Gradient, Sums, tree_sum
from worker.task import Task

T = TypeVar("T", Gradient, Sums)

MOST_ATTEMPTS = 10
"""How often a step is tried on workers that all die of it."""

STOP_SECONDS = 0.5
"""How often to look, while there is nothing but to wait, whether the service stops."""


class Stopped(Exception):
    """The service stops; the job can go on from its last checkpoint."""


class JobEnded(Exception):
    """Someone else ended the job, by cancelling it."""


class WorkersLost(Exception):
    """No worker came back in time, or all were lost too often."""


@dataclass(frozen=True)
class Policy:
    """What the service has decided for all its jobs."""

    checkpoint_seconds: float = 10.0
    """A checkpoint is due so long after the last one."""
    wait_seconds: float = 120.0
    """How long a job without any worker waits for one to come back."""


@dataclass(frozen=True)
class Trainer:
    """Trains one job on its workers. Use it once."""

    spec: JobSpec
    task: Task
    workers: Workers
    checkpoints: Checkpoints
    policy: Policy
    record: Callable[[Event], bool]
    """Makes an event durable; False once the job has ended."""
    set_progress: Callable[[Progress], bool]
    """Shows how far the job is; False once the job has ended."""
    stop: threading.Event
    timing: Timing = field(default_factory=Timing)

    def train(self) -> tuple[Array, EpochCompleted]:
        """Takes all steps from the last checkpoint on. Returns the parameters and how the last epoch went.

        Raises Diverged, WorkersLost, Stopped, JobEnded, and OSError if a checkpoint can't be written.
        """
        state = self.checkpoints.load() or self._first_state()
        self._report(StateChanged(Running()))
        steps = self.task.shards.steps_per_epoch
        total = steps * self.spec.epochs
        saved = epoch_began = time.monotonic()
        throughput = Throughput()
        while True:
            state, loss = self._step(state)
            rate = throughput.at(self.task.shards.samples(state.step))
            if not self.set_progress(Progress(state.step, loss, rate, self.workers.ready())):
                raise JobEnded
            if state.step % steps == 0:
                epoch = self._complete_epoch(state, epoch_began)
                if state.step == total:
                    return state.params, epoch
                state = replace(state, epoch=no_sums(self.task.loss.scores))
                epoch_began = time.monotonic()
            if self.stop.is_set() or time.monotonic() - saved >= self.policy.checkpoint_seconds:
                self._save(state)
                saved = time.monotonic()
            if self.stop.is_set():
                raise Stopped

    def _first_state(self) -> TrainingState:
        params = self.task.network.initial(self.spec.seed)
        return TrainingState(0, params, self.spec.optimizer.init(params), no_sums(self.task.loss.scores))

    def _step(self, state: TrainingState) -> tuple[TrainingState, float]:
        """One mini-batch in, one update out. Returns the new state and the mean loss before the update."""
        with self.timing.phase("gather"):
            gradients = self._ask(lambda: self.workers.gradients(state.params, state.step), state.step)
        with self.timing.phase("average"):
            mean = average(gradients)
            check_finite(mean, self.task.network, state.step)
        with self.timing.phase("optimizer"):
            state = apply(state, mean, self.spec.optimizer, self.spec.learning_rate)
            check_applied(state, self.task.network)
        return state, mean.sums.loss / mean.sums.count

    def _complete_epoch(self, state: TrainingState, began: float) -> EpochCompleted:
        """Validates, and reports how the epoch went."""
        with self.timing.phase("validate"):
            held_out = tree_sum(self._ask(lambda: self.workers.evaluate(state.params), state.step))
        if not math.isfinite(held_out.loss):
            raise Diverged(f"the validation loss after step {state.step} is NaN or infinite. {ADVICE}")
        event = EpochCompleted(
            epoch=state.step // self.task.shards.steps_per_epoch,
            step=state.step,
            training_loss=state.epoch.loss / state.epoch.count,
            training_accuracy=_share(state.epoch, "accuracy"),
            validation_loss=held_out.loss / held_out.count if held_out.count else None,
            validation_accuracy=_share(held_out, "accuracy"),
            learning_rate=self.spec.learning_rate,
            duration_seconds=time.monotonic() - began,
        )
        self._report(event)
        return event

    def _save(self, state: TrainingState) -> None:
        with self.timing.phase("checkpoint"):
            self.checkpoints.save(state)
        self._report(CheckpointSaved(state.step))

    def _ask(self, question: Callable[[], Sequence[T]], step: int) -> Sequence[T]:
        """Asks the workers; when all are lost, waits for one to come back and asks again."""
        for _ in range(MOST_ATTEMPTS):
            try:
                return question()
            except NoWorkers:
                self._report_changes(step)
                self._wait_for_worker()
            finally:
                self._report_changes(step)
        raise WorkersLost(f"all workers were lost {MOST_ATTEMPTS} times while step {step + 1} was computed")

    def _wait_for_worker(self) -> None:
        wait = self.policy.wait_seconds
        reason = f"all workers are lost; waits up to {wait:g} seconds for one to come back"
        self._report(StateChanged(WaitingForWorkers(reason)))
        deadline = time.monotonic() + wait
        while not self.workers.wait(min(max(deadline - time.monotonic(), 0.0), STOP_SECONDS)):
            if self.stop.is_set():
                raise Stopped
            if time.monotonic() >= deadline:
                raise WorkersLost(f"all workers were lost, and none came back within {wait:g} seconds")
        self._report(StateChanged(Running()))

    def _report_changes(self, step: int) -> None:
        for change in self.workers.changes():
            match change:
                case Lost(worker, reason):
                    self._report(WorkerLost(worker, step, reason))
                case Joined(worker):
                    self._report(WorkerJoined(worker, step))

    def _report(self, event: Event) -> None:
        if not self.record(event):
            raise JobEnded


def _share(sums: Sums, score: str) -> float | None:
    return sums.scores[score] / sums.count if score in sums.scores and sums.count else None
