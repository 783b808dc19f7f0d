"""The promise: the same bits with any workers, after any loss, and after any stop."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.cluster.local_pool import LocalPool
from service.cluster.pool import Workers
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
from service.training.optimizers import Adam, Sgd
from service.training.state import Diverged
from service.training.trainer import MOST_ATTEMPTS, JobEnded, Policy, Stopped, Trainer, WorkersLost
from tests.unit.service.examples import DATA, SPEC, go_on, spec, task
from tests.unit.service.unreliable import REASON, UnreliableWorkers
from worker.layers import Dense
from worker.losses import MeanSquaredError
from worker.task import Data

NEVER = Policy(checkpoint_seconds=1e9, wait_seconds=5.0)
ALWAYS = Policy(checkpoint_seconds=0.0, wait_seconds=5.0)
STEPS = 12


@dataclass
class Run:
    """One trainer's life, and what it reported."""

    directory: Path
    policy: Policy = NEVER
    of: JobSpec = SPEC
    data: Data = DATA
    stop: threading.Event = field(default_factory=threading.Event)
    record: Callable[[Event], bool] = lambda _: True
    set_progress: Callable[[Progress], bool] = go_on
    stop_after: int | None = None
    events: list[Event] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)

    def train(self, workers: Workers | None = None) -> bytes:
        """The parameters' bits."""
        if workers is None:
            with LocalPool().open(task(self.of), self.data, self.of.workers) as local:
                return self.train(local)
        checkpoints = Checkpoints(self.directory)
        trainer = Trainer(
            self.of, task(self.of), workers, checkpoints, self.policy, self._record, self._progress, self.stop
        )
        params, epoch = trainer.train()
        assert epoch.epoch == self.of.epochs
        return params.tobytes()

    def of_kind(self, *kinds: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kinds)]

    @property
    def epochs(self) -> list[EpochCompleted]:
        """The epochs, but for the time they took."""
        return [replace(e, duration_seconds=0.0) for e in self.events if isinstance(e, EpochCompleted)]

    def _record(self, event: Event) -> bool:
        self.events.append(event)
        return self.record(event)

    def _progress(self, progress: Progress) -> bool:
        self.progress.append(progress)
        if progress.step == self.stop_after:
            self.stop.set()
        return self.set_progress(progress)


def undisturbed(of: JobSpec = SPEC) -> tuple[bytes, list[EpochCompleted]]:
    with TemporaryDirectory() as directory:
        run = Run(Path(directory), of=of)
        return run.train(), run.epochs


BITS, EPOCHS = undisturbed()


def test_what_a_run_reports(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.train() == BITS
    assert run.events == [StateChanged(Running()), *run.of_kind(EpochCompleted)]
    assert [(epoch.epoch, epoch.step) for epoch in run.epochs] == [(1, 4), (2, 8), (3, 12)]
    assert [p.step for p in run.progress] == list(range(1, STEPS + 1))
    assert {p.workers for p in run.progress} == {SPEC.workers}
    assert list(tmp_path.iterdir()) == []


def test_an_epochs_numbers_are_those_of_its_rows(tmp_path: Path) -> None:
    """Reckoned from the parameters themselves: with a rate of almost nothing they stay where they began."""
    run = Run(tmp_path, of=spec(learning_rate=1e-30, optimizer=Sgd(), epochs=1))
    params = np.frombuffer(run.train(), np.float32)
    np.testing.assert_allclose(params, task().network.initial(SPEC.seed), rtol=0, atol=1e-25)
    (epoch,) = run.epochs
    whole = task(spec(shards=1, batch_size=1000))
    training = whole.gradient(DATA, params, 0, 0).sums
    held_out = whole.evaluate(DATA, params, 0)
    assert (training.count, held_out.count) == (24, 6)
    assert epoch.training_loss == pytest.approx(training.loss / 24)
    assert epoch.validation_loss == pytest.approx(held_out.loss / 6)
    assert (epoch.training_accuracy, epoch.validation_accuracy) == (
        training.scores["accuracy"] / 24,
        held_out.scores["accuracy"] / 6,
    )
    assert epoch.learning_rate == 1e-30


def test_without_held_out_rows_and_without_classes(tmp_path: Path) -> None:
    numbers = Data(DATA.inputs, DATA.targets.astype(np.float32))
    of = spec(validation_fraction=0.0, layers=(Dense(1),), loss=MeanSquaredError())
    run = Run(tmp_path, of=of, data=numbers)
    run.train()
    assert {(e.training_accuracy, e.validation_loss, e.validation_accuracy) for e in run.epochs} == {(None, None, None)}
    losses = [e.training_loss for e in run.epochs]
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("shards", [1, 3, 7])
def test_any_number_of_workers_gives_the_same_bits(workers: int, shards: int, tmp_path: Path) -> None:
    of = spec(shards=shards)
    run = Run(tmp_path, of=of)
    assert (run.train(UnreliableWorkers(task(of), DATA, workers)), run.epochs) == undisturbed(of)


CALLS = STEPS + SPEC.epochs


@settings(max_examples=30)
@given(st.dictionaries(st.integers(0, CALLS + 9), st.sets(st.integers(0, 2), min_size=1), max_size=8))
def test_any_losses_give_the_same_bits(losses: Mapping[int, set[int]]) -> None:
    with TemporaryDirectory() as directory:
        workers = UnreliableWorkers(task(), DATA, 3, {call: sorted(lost) for call, lost in losses.items()})
        run = Run(Path(directory))
        assert (run.train(workers), run.epochs) == (BITS, EPOCHS)
    lost = run.of_kind(WorkerLost)
    # What is lost in the last call nobody needs any more, and has no step to come back in.
    assert len(lost) - len(run.of_kind(WorkerJoined)) == 3 - workers.ready()
    assert all(isinstance(e, WorkerLost) and e.reason == REASON for e in lost)


def test_a_lost_worker_is_reported_and_comes_back_at_a_later_step(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.train(UnreliableWorkers(task(), DATA, 3, {2: [1]})) == BITS
    assert run.of_kind(WorkerLost, WorkerJoined) == [WorkerLost(1, 2, REASON), WorkerJoined(1, 3)]
    assert [p.workers for p in run.progress][:5] == [3, 3, 2, 3, 3]
    assert run.of_kind(StateChanged) == [StateChanged(Running())]


@pytest.mark.parametrize(("call", "step"), [(0, 0), (3, 3), (4, 4)], ids=["first step", "a step", "validation"])
def test_when_all_are_lost_the_job_waits_and_goes_on(call: int, step: int, tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.train(UnreliableWorkers(task(), DATA, 2, {call: [0, 1]})) == BITS
    first, *others, back, again, joined, joined_too = [e for e in run.events if not isinstance(e, EpochCompleted)]
    assert (first, others) == (
        StateChanged(Running()),
        [WorkerLost(1, step, REASON), WorkerLost(0, step, REASON)],
    )
    assert isinstance(back, StateChanged)
    assert back.state == WaitingForWorkers("all workers are lost; waits up to 5 seconds for one to come back")
    assert [again, joined, joined_too] == [StateChanged(Running()), WorkerJoined(0, step), WorkerJoined(1, step)]
    assert run.epochs == EPOCHS


def test_when_none_comes_back_the_job_fails_with_its_checkpoint(tmp_path: Path) -> None:
    run = Run(tmp_path, Policy(0.0, wait_seconds=0.05))
    with pytest.raises(WorkersLost, match=r"none came back within 0\.05 seconds"):
        run.train(UnreliableWorkers(task(), DATA, 2, {3: [0, 1]}, comes_back=lambda: False))
    saved = Checkpoints(tmp_path).load()
    assert saved is not None
    assert saved.step == 3


def test_a_step_of_which_all_workers_die_again_and_again_ends(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with pytest.raises(WorkersLost, match=rf"lost {MOST_ATTEMPTS} times while step 3 was computed"):
        run.train(UnreliableWorkers(task(), DATA, 1, {call: [0] for call in range(2, 99)}))


def test_waiting_ends_when_the_service_stops(tmp_path: Path) -> None:
    run = Run(tmp_path, Policy(1e9, wait_seconds=60.0))
    run.stop.set()
    began = time.monotonic()
    with pytest.raises(Stopped):
        run.train(UnreliableWorkers(task(), DATA, 1, {0: [0]}, comes_back=lambda: False))
    assert time.monotonic() - began < 5


def stopped_after(steps: Sequence[int], directory: Path, policy: Policy) -> tuple[bytes, list[EpochCompleted]]:
    """Trains with stops after some steps, each time with a new trainer that knows the directory alone."""
    epochs: list[EpochCompleted] = []
    for until in [*steps, None]:
        run = Run(directory, policy, stop_after=until)
        try:
            return run.train(), epochs + run.epochs
        except Stopped:
            saved = Checkpoints(directory).load()
            assert saved is not None
            assert (saved.step, run.events[-1]) == (until, CheckpointSaved(saved.step))
            epochs += run.epochs
    raise AssertionError("it never ended")


@settings(max_examples=20)
@given(st.sets(st.integers(1, STEPS - 1), max_size=5), st.sampled_from([NEVER, ALWAYS]))
def test_any_stops_give_the_same_bits(steps: set[int], policy: Policy) -> None:
    with TemporaryDirectory() as directory:
        assert stopped_after(sorted(steps), Path(directory), policy) == (BITS, EPOCHS)


@pytest.mark.parametrize("optimizer", [Sgd(), Adam()], ids=str)
def test_a_crash_at_any_step_gives_the_same_bits(optimizer: Sgd | Adam, tmp_path: Path) -> None:
    """Nothing is written at the end; the next trainer has the last checkpoint, and takes some steps again."""
    of = spec(optimizer=optimizer)
    bits, epochs = undisturbed(of)

    class Crash(Exception):
        pass

    def crash(at: int) -> Callable[[Progress], bool]:
        def set_progress(progress: Progress) -> bool:
            if progress.step == at:
                raise Crash
            return True

        return set_progress

    seen: dict[int, EpochCompleted] = {}
    for at in (2, 5, 6, 9, 12, 99):
        # A checkpoint at every step, or none before the crash.
        run = Run(tmp_path, ALWAYS if at % 2 else NEVER, of=of, set_progress=crash(at))
        with suppress(Crash):
            assert run.train() == bits
        for epoch in run.epochs:
            assert seen.setdefault(epoch.epoch, epoch) == epoch
    assert list(seen.values()) == epochs


def test_a_stop_in_the_last_step_comes_too_late(tmp_path: Path) -> None:
    assert Run(tmp_path, stop_after=STEPS).train() == BITS


@pytest.mark.parametrize(
    "of",
    [
        spec(learning_rate=1e30, optimizer=Sgd(), layers=(Dense(4), Dense(3))),
        spec(learning_rate=1e37),
        spec(learning_rate=1e38, optimizer=Adam()),
    ],
    ids=["sgd", "momentum", "adam"],
)
def test_a_run_that_diverges_says_so_and_keeps_the_last_good_checkpoint(of: JobSpec, tmp_path: Path) -> None:
    run = Run(tmp_path, ALWAYS, of=of)
    with pytest.raises(Diverged, match=r"infinite.*smaller learning rate"):
        run.train()
    applied = [event.step for event in run.events if isinstance(event, CheckpointSaved)]
    saved = Checkpoints(tmp_path).load()
    if applied:
        assert saved is not None
        assert saved.step == applied[-1] == len(run.progress)
        assert all(np.isfinite(v).all() for v in (saved.params, *saved.optimizer.values()))
    else:
        assert saved is None


def test_a_validation_loss_that_is_not_finite_is_divergence(tmp_path: Path) -> None:
    """Training rows may be well while the held-out ones are not."""
    inputs = DATA.inputs.copy()
    inputs[task().shards.validation(0)] = 3e38
    run = Run(tmp_path, data=Data(inputs, DATA.targets))
    with pytest.raises(Diverged, match="the validation loss after step 4 is NaN or infinite"):
        run.train()
    assert run.epochs == []


@pytest.mark.parametrize("kind", [Running, EpochCompleted, CheckpointSaved, WorkerLost])
def test_a_job_that_ended_stops_training(kind: type, tmp_path: Path) -> None:
    """Whoever runs it learns it from its next event."""
    ended: list[Event] = []

    def record(event: Event) -> bool:
        if isinstance(event, kind) or (isinstance(event, StateChanged) and isinstance(event.state, kind)):
            ended.append(event)
        return not ended

    run = Run(tmp_path, ALWAYS, record=record)
    with pytest.raises(JobEnded):
        run.train(UnreliableWorkers(task(), DATA, 2, {2: [1]}))
    assert run.events[-1:] == ended


def test_a_job_that_ended_stops_at_its_next_step(tmp_path: Path) -> None:
    run = Run(tmp_path, set_progress=lambda progress: progress.step < 2)
    with pytest.raises(JobEnded):
        run.train()
    assert [p.step for p in run.progress] == [1, 2]


def test_a_disk_error_stops_at_the_last_good_checkpoint(tmp_path: Path) -> None:
    (tmp_path / ".step-000000000003.safetensors.part").symlink_to("/dev/full")
    run = Run(tmp_path, ALWAYS)
    with pytest.raises(OSError, match="No space left"):
        run.train()
    assert run.of_kind(CheckpointSaved) == [CheckpointSaved(1), CheckpointSaved(2)]
    saved = Checkpoints(tmp_path).load()
    assert saved is not None
    assert saved.step == 2
    assert Run(tmp_path).train() == BITS


def test_time_is_counted_by_phase(tmp_path: Path) -> None:
    with LocalPool().open(task(), DATA, 2) as workers:
        trainer = Trainer(
            SPEC, task(), workers, Checkpoints(tmp_path), ALWAYS, lambda _: True, go_on, threading.Event()
        )
        trainer.train()
    counted = {phase: sum(counts) for phase, counts in trainer.timing.counts.items()}
    assert counted == {"gather": 12, "average": 12, "optimizer": 12, "validate": 3, "checkpoint": 11}
    assert all(seconds > 0 for seconds in trainer.timing.seconds.values())
