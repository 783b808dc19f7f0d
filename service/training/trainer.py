"""The trainer: one job's loop of steps.

Split, gather, average, step, record. It knows nothing of how shards are computed, of clients or of metrics: it reports
what happened, and others make of it what they want.
"""

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from service.cluster.workers import Joined, Lost, TooFewWorkers, Workers
from service.jobs.events import (
    CheckpointSaved,
    EpochCompleted,
    Progress,
    RolledBack,
    Running,
    StateChanged,
    WaitingForWorkers,
    WorkerJoined,
    WorkerLost,
)
from service.jobs.health import HealthSampled
from service.jobs.spec import JobSpec, OnDivergence
from service.training.arrivals import MOST_UNANSWERED, Arrivals, Silent, Taken
from service.training.checkpoints import Checkpoints
from service.training.looks import Looks
from service.training.outbox import Outbox
from service.training.pace import Pace
from service.training.standing import is_best, is_last, is_told, judge, why_early
from service.training.state import ADVICE, Diverged, TrainingState, check_state, first_state, no_sums, nothing_pending
from service.training.timing import Throughput, Timing
from service.training.update import Mean, Update, check_finite, weights_of
from service.training.wishes import Wishes, known_rates
from worker.blocks import Block, merge
from worker.gradient import Gradient, Sums
from worker.scores import CONFUSION, BinaryConfusion, Confusion, values
from worker.task import Computation

MOST_ATTEMPTS = 10
"""How often a step is tried on workers that all die of it."""

MOST_ROLLBACKS = 10
"""How often a job is rolled back: the learning rate is then a thousandth of what it was."""

NEXT_CHECKPOINT = 1.01
"""Of the checkpoints that follow one that was told of, the first with so many times its steps is told of too."""

STOP_SECONDS = 0.5
"""How often to look, while there is nothing but to wait, whether to stop."""


class Stopped(Exception):
    """The trainer was told to stop; the job can go on from its last checkpoint."""


class WorkersLost(Exception):
    """Not enough workers came back in time, or all were lost too often."""


@dataclass(frozen=True)
class Policy:
    """What the service has decided for all its jobs."""

    checkpoint_seconds: float = 10.0
    """A checkpoint is due so long after the last one."""
    wait_seconds: float = 120.0
    """How long a job with too few workers waits for one to come back."""
    silence_seconds: float = 120.0
    """How long a job whose mini-batches come from a client waits for the next one."""


@dataclass
class Trainer:
    """Trains one job on its workers. Use it once."""

    spec: JobSpec
    task: Computation
    workers: Workers
    checkpoints: Checkpoints
    policy: Policy
    outbox: Outbox
    stop: threading.Event
    timing: Timing = field(default_factory=Timing)
    wishes: Wishes = field(default_factory=Wishes)
    arrivals: Arrivals | None = None
    """Where its mini-batches come from, if a client sends them."""
    stopped_early: str = field(default="", init=False)
    """Why it ended before its last epoch, if it did."""
    confusion: tuple[tuple[float, ...], ...] = ()
    """How the classes of the held-out rows were confused at the last look, a row for each true class."""

    def train(self) -> tuple[TrainingState, EpochCompleted]:
        """Takes all steps from the last checkpoint on. Returns the final state and how the last epoch went.

        Of a job that may stop early: the state with the parameters of the best epoch, and how that went.

        Raises Diverged, WorkersLost, Stopped, Silent, and OSError if a checkpoint can't be written.
        """
        network = self.task.network
        self._looks = Looks(network)
        self._health: HealthSampled | None = None
        self._lost: dict[int, float] = {}
        self._rolls_back = self.spec.on_divergence is OnDivergence.ROLLBACK
        self._throughput = Throughput()
        self._update = Update(
            network.dense,
            self.workers.params.dtype,
            network.learned,
            self.spec.regularized,
            weights_of(network),
            network.tables,
            network.segments,
        )
        self._state = self._restored(self.checkpoints.load()) or self._first_state()
        rates = known_rates(self.wishes.held, self._state.unacknowledged)
        self._pace = Pace(self.spec, self.task.shards.steps_per_epoch, rates)
        for event in self._state.unacknowledged:
            self.outbox.post(event)
        self.outbox.progress = self._progress
        self._wait_for_workers(first=True)
        self._epoch_began = time.monotonic()
        self._due = self._epoch_began + self.policy.checkpoint_seconds
        self._throughput.at(self.task.shards.samples(self._state.step))
        self._told_checkpoint, self._durable = 0, self._state.step
        self._tell_taken()
        if self._rolls_back and self._state.step == 0:
            self._save()
        while True:
            try:
                if epoch := self._take_steps():
                    return self._state, epoch
            except Diverged as error:
                self._roll_back(self._located(error))

    def _take_steps(self) -> EpochCompleted:
        """Steps to the end of the last epoch, and returns how that went."""
        steps = self.task.shards.steps_per_epoch
        self._look = self._pace.next_look(self._state.step)
        while True:
            state = self._state
            if self.arrivals is not None and not self._await_batch(self.arrivals):
                return self._end_epoch()
            self._heed_wish()
            loss = self._step()
            self.outbox.newest = (state.step, loss)
            if ends_epoch := state.step % steps == 0:
                epoch = self._complete_epoch()
                if self.arrivals is None and is_last(state, self.spec, epoch):
                    return self._ended(epoch)
            stopping = self.stop.is_set()  # looked at once: whoever stops here has saved here
            due = stopping or time.monotonic() >= self._due
            # Where to roll back to must follow from the job alone, not from the clock: the start of the epoch.
            if ends_epoch if self._rolls_back else due or (ends_epoch and self.arrivals is not None):
                self._save(tell=stopping)
            if stopping:
                raise Stopped

    def _heed_wish(self) -> None:
        """Takes another learning rate from here on, if one was asked for; one that rolls back, at an epoch's start."""
        step = self._state.step
        if self._rolls_back and step % self.task.shards.steps_per_epoch:
            return
        if change := self.wishes.due(step, self._pace.rates):
            self._pace = replace(self._pace, rates=(*self._pace.rates, change))
            self.outbox.post(change)
            self._save()  # so that nothing is ever made of a change that nobody knows of after a crash

    def _progress(self) -> Progress:
        """How far it has come. Called by whoever wants to know, from another thread."""
        step, loss = self.outbox.newest
        if not step:
            return Progress()
        speed, ready = self._throughput.at(self.task.shards.samples(step)), self.workers.ready()
        return Progress(step, loss, speed, ready, self.workers.shared(), self._rate(step - 1), self._health)

    def _step(self) -> float:
        """One mini-batch in, one update out. Returns the mean loss before the update."""
        state, clock = self._state, time.perf_counter
        look = state.step == self._look
        began = clock()
        blocks = self._ask(lambda: self.workers.gradients(state.step, look=look))
        spent = self.workers.spent()
        answered = clock()
        updates = self._pace.ends_update(state.step)
        mean = self._average(blocks) if updates else self._accumulate(blocks)
        check_finite(mean, self.task.network, state.step)
        averaged = clock()
        if updates:
            self._apply(mean, look=look)
        state.step += 1
        state.epoch += mean.sums
        self.timing.step(answered - began, spent, averaged - answered, clock() - averaged)
        if self.arrivals is not None:
            taken = Taken(state.step, mean.sums.mean_loss, math.sqrt(mean.squared_norm))
            state.taken = (*state.taken, taken)[-MOST_UNANSWERED:]
            self._tell_taken()
        return mean.sums.mean_loss

    def _await_batch(self, arrivals: Arrivals) -> bool:
        """Waits for the mini-batch of the next step; whether there is one, and not the end of the job.

        Raises Stopped, or Silent when it has waited for long; what was learned is on the disk then.
        """
        step, since = self._state.step, time.monotonic()
        while not arrivals.wait(step, STOP_SECONDS):
            stopping, waited = self.stop.is_set(), time.monotonic() - since
            ends = stopping or waited >= self.policy.silence_seconds
            if ends or (step > self._durable and waited >= self.policy.checkpoint_seconds):
                self._save(tell=ends)
            if ends:
                raise Stopped if stopping else Silent
        return not arrivals.is_over(step)

    def _end_epoch(self) -> EpochCompleted:
        """The end of a job that a client ends: an epoch that has begun ends with it."""
        epoch = None if self._state.epoch.count else self._state.last_epoch
        if epoch is None:
            return self._complete_epoch(is_end=True)
        self.outbox.post(epoch)  # of very many epochs, not all were told of
        return epoch

    def _tell_taken(self) -> None:
        if self.arrivals is not None:
            self.arrivals.tell(self._state.taken, self._state.step, self._durable)

    def _apply(self, mean: Mean, *, look: bool) -> None:
        """Makes an update, and tells of the layers if there was a look at them."""
        state = self._state
        rate, number = self._rate(state.step), self._pace.update(state.step)
        update = partial(self._update.apply, self.spec.optimizer, state.params, mean, state.carried, rate, number)
        if not look:
            update()
            return
        self._look = self._pace.next_look(state.step + 1)
        if (seen := self._looks.at(state.params, mean, update)) is not None:
            self._health = HealthSampled(state.step + 1, *seen, self.timing.straggler_ratio())
            if self._pace.is_told(state.step):
                self.outbox.post(self._health)

    def _average(self, blocks: Sequence[Block]) -> Mean:
        """The mean over all rows since the last update; nothing is pending after that."""
        state = self._state
        mean = self._update.average(blocks, self.spec.shards, state.pending)
        if state.pending:
            state.pending = nothing_pending(self.task, state.pending.vector)
        return mean

    def _accumulate(self, blocks: Sequence[Block]) -> Mean:
        """Adds a step to what is pending."""
        state = self._state
        assert state.pending is not None  # noqa: S101 - where an update takes several steps there is such a vector
        total = self._update.accumulate(blocks, self.spec.shards, state.pending)
        state.pending = Gradient(state.pending.vector, state.pending.sums + total.sums, tuple(total.tables))
        return total

    def _complete_epoch(self, *, is_end: bool = False) -> EpochCompleted:
        """Validates, and reports how the epoch went. Raises Diverged, and then the epoch is not reported."""
        state = self._state
        check_state(state, self.task.network)  # before anyone is told of an epoch that must be taken back
        held_out = self._validate()
        if not math.isfinite(held_out.loss):
            raise Diverged(f"the validation loss after step {state.step} is NaN or infinite. {ADVICE}")
        training_scores = values(self.task.training_scores, state.epoch.scores)
        validation_scores = values(self.task.scores, held_out.scores)
        epoch = EpochCompleted(
            epoch=math.ceil(state.step / self.task.shards.steps_per_epoch),
            step=state.step,
            training_loss=state.epoch.mean_loss,
            training_accuracy=training_scores.get("accuracy"),
            validation_loss=held_out.mean_loss if held_out.weight else None,
            validation_accuracy=validation_scores.get("accuracy"),
            learning_rate=self._rate(state.step - 1),
            duration_seconds=time.monotonic() - self._epoch_began,
            training_scores=training_scores,
            validation_scores=validation_scores,
        )
        epoch = judge(state, self.spec, epoch)
        state.epoch = no_sums(self.task.training_scores)
        state.last_epoch = epoch if self.arrivals is not None else None
        self._epoch_began = time.monotonic()
        if is_told(epoch.epoch, self.spec) or is_end or is_last(state, self.spec, epoch):
            self.outbox.post(epoch)
        if is_best(epoch) and (self.checkpoints.keep_best or self.spec.early_stopping):
            self.checkpoints.save_best(state)
        return epoch

    def _ended(self, epoch: EpochCompleted) -> EpochCompleted:
        """Goes back to the best parameters, if the job may stop early. Returns how their epoch went."""
        state, best = self._state, self._state.best_epoch
        if self.spec.early_stopping is None or best is None:
            return epoch
        self.stopped_early = why_early(state, self.spec, epoch)
        if best.epoch != epoch.epoch:
            state.params[...] = self.checkpoints.load_best(best.step).params
            self._validate()
        return best

    def _validate(self) -> Sums:
        """Loss and scores of the held-out rows, if there are any."""
        if not self.task.shards.validation_count:
            return no_sums(self.task.scores)
        with self.timing.phase("validate"):
            (block,) = merge(self._ask(self.workers.evaluate), self.spec.shards)
        self.timing.computed(self.workers.spent())
        if isinstance(confusion := self.task.scores.get(CONFUSION), Confusion | BinaryConfusion):
            self.confusion = tuple(map(tuple, confusion.matrix(block.total.sums.scores[CONFUSION]).tolist()))
        return block.total.sums

    def _rate(self, step: int) -> float:
        return self._pace.rate(step) * self._state.rate_scale * self._state.plateau_factor

    def _first_state(self) -> TrainingState:
        initial = self.checkpoints.load_initial() if self.spec.initial_model else {}
        return first_state(self.spec, self.task, self.workers.params, initial)

    def _restored(self, state: TrainingState | None) -> TrainingState | None:
        """A state from a checkpoint, its parameters moved to where the workers read them."""
        if state is not None:
            self.workers.params[...] = state.params
            state.params = self.workers.params
        return state

    def _roll_back(self, error: Diverged) -> None:
        """Goes back to the start of the epoch with half the learning rate, if the job asks for that."""
        scale, diverged = self._state.rate_scale / 2, self._state.step
        restored = self._restored(self.checkpoints.load()) if self._rolls_back else None
        if restored is None or scale < 0.5**MOST_ROLLBACKS:
            raise error
        self._state = restored
        self._state.rate_scale = scale
        rate = self._pace.base(restored.step) * scale  # before the schedule
        self.outbox.post(RolledBack(diverged, restored.step, rate, str(error), scale))
        self._epoch_began = time.monotonic()
        self._save()

    def _located(self, error: Diverged) -> Diverged:
        """The same, with the layer that shows it in the step that broke, or in the one that would have followed."""
        if self.arrivals is not None:
            return error  # a mini-batch that has not come yet can't be looked at
        blocks = self._ask(partial(self.workers.gradients, self._state.step, look=True))
        return self._looks.located(error, merge(blocks, self.spec.shards)[0].total.sums)

    def _save(self, *, tell: bool = False) -> None:
        check_state(self._state, self.task.network)
        self._state.unacknowledged = self.outbox.unacknowledged()
        with self.timing.phase("checkpoint"):
            self.timing.checkpoint_bytes = self.checkpoints.save(self._state)
        self._durable = self._state.step
        self._tell_taken()
        self._due, self.timing.checkpoint_time = time.monotonic() + self.policy.checkpoint_seconds, time.time()
        # Ever further apart, so that their number grows with the logarithm of the steps.
        if tell or self._state.step >= NEXT_CHECKPOINT * self._told_checkpoint:
            self._told_checkpoint = self._state.step
            self.outbox.post(CheckpointSaved(self._state.step))

    def _ask(self, question: Callable[[], Sequence[Block]]) -> Sequence[Block]:
        """Asks the workers; when there are too few, waits for some to come back and asks again."""
        for _ in range(MOST_ATTEMPTS):
            try:
                return question()
            except TooFewWorkers:
                self._report_changes()
                self._wait_for_workers()
            finally:
                self._report_changes()
        raise WorkersLost(f"all workers were lost {MOST_ATTEMPTS} times while step {self._state.step + 1} was computed")

    def _wait_for_workers(self, *, first: bool = False) -> None:
        """Waits until there are enough workers. Raises WorkersLost or Stopped."""
        wait, fewest = self.policy.wait_seconds, self.spec.min_workers
        if not first:
            left = f"{self.workers.ready()} workers are left of at least {fewest}"
            self.outbox.post(StateChanged(WaitingForWorkers(f"{left}; waits up to {wait:g} seconds for more")))
        deadline = time.monotonic() + wait
        while not self.workers.wait(min(max(deadline - time.monotonic(), 0.0), STOP_SECONDS)):
            if self.stop.is_set():
                raise Stopped
            if time.monotonic() >= deadline:
                raise WorkersLost(f"fewer than {fewest} workers, and no more came within {wait:g} seconds")
        if first:
            self._report_changes(first=True)
        self.outbox.post(StateChanged(Running()))

    def _report_changes(self, *, first: bool = False) -> None:
        """Tells who was lost, and who came; but not of those with whom a job begins."""
        step = self._state.step
        for change in self.workers.changes():
            match change:
                case Lost(worker, reason, cause, at):
                    self._lost.setdefault(worker, at)
                    self.timing.losses[cause] += 1
                    self.outbox.post(WorkerLost(worker, step, reason))
                case Joined(worker, exchange, at) if not first or worker in self._lost:
                    if worker in self._lost:
                        self.timing.recoveries.add(at - self._lost.pop(worker))
                    self.outbox.post(WorkerJoined(worker, step, exchange))
