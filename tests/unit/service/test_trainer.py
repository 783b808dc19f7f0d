"""The promise: the same bits with any workers, after any loss, and after any stop."""

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.cluster.local_workers import LocalWorkers
from service.jobs.events import (
    CheckpointSaved,
    EpochCompleted,
    RolledBack,
    Running,
    StateChanged,
    WaitingForWorkers,
    WorkerJoined,
    WorkerLost,
)
from service.jobs.health import HealthSampled
from service.jobs.spec import JobSpec
from service.training.checkpoints import Checkpoints
from service.training.optimizers import Adam, Sgd
from service.training.outbox import Outbox
from service.training.state import Diverged
from service.training.timing import PHASES
from service.training.trainer import MOST_ATTEMPTS, Policy, Stopped, Trainer, WorkersLost
from tests.unit.service.examples import DATA, INPUTS, SPEC, TARGETS, spec, task
from tests.unit.service.full_disk import largest_file
from tests.unit.service.training_run import (
    ALWAYS,
    BITS,
    EPOCHS,
    NEVER,
    STEPS,
    Crash,
    Run,
    broken_validation,
    crash_at,
    finite,
    in_memory,
    undisturbed,
)
from tests.unit.service.unreliable import REASON, UnreliableWorkers
from worker.blocks import Block
from worker.layers import Dense
from worker.losses import MeanSquaredError
from worker.scores import values
from worker.task import Data


def test_what_a_run_reports(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.train() == BITS
    assert run.events == [StateChanged(Running()), *run.of_kind(EpochCompleted, HealthSampled)]
    assert [(epoch.epoch, epoch.step) for epoch in run.epochs] == [(1, 4), (2, 8), (3, 12)]
    assert [p.step for p in run.progress] == list(range(1, STEPS + 1))
    assert {(p.workers, p.shared_memory_workers) for p in run.progress} == {(SPEC.workers, 0)}
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
        training.scores["accuracy"][0] / 24,
        held_out.scores["accuracy"][0] / 6,
    )
    assert epoch.validation_scores == values(whole.scores, held_out.scores)
    assert set(epoch.validation_scores) == {"accuracy", "f1"}
    assert epoch.training_scores == {"accuracy": epoch.training_accuracy}
    assert epoch.learning_rate == 1e-30


def test_a_step_is_the_formula(tmp_path: Path) -> None:
    """The whole first step, reckoned in float64 from all the rows of the batch at once."""
    run = Run(tmp_path, of=spec(optimizer=Sgd(), learning_rate=0.5), stop_after=1)
    with pytest.raises(Stopped):
        run.train()
    saved = Checkpoints(tmp_path).load()
    assert saved is not None
    whole = task(spec(shards=1))
    start = whole.network.initial(SPEC.seed)
    gradient = whole.gradient(DATA, start.astype(np.float64), 0, 0)
    expected = start - 0.5 * gradient.vector / gradient.sums.count
    np.testing.assert_allclose(saved.params, expected, rtol=1e-5, atol=1e-6)


def test_without_held_out_rows_and_without_classes(tmp_path: Path) -> None:
    numbers = Data(INPUTS, TARGETS.astype(np.float32))
    of = spec(validation_fraction=0.0, layers=(Dense(1),), loss=MeanSquaredError(), optimizer=Sgd(), keep_best=True)
    run = Run(tmp_path, of=of, data=numbers)
    run.train()
    assert {(e.training_accuracy, e.validation_loss, e.validation_accuracy) for e in run.epochs} == {(None, None, None)}
    losses = [e.training_loss for e in run.epochs]
    assert losses == sorted(losses, reverse=True)
    assert list(tmp_path.iterdir()) == []  # without held-out rows none is the best


class NeverEvaluating(LocalWorkers):
    def evaluate(self) -> Sequence[Block]:
        raise AssertionError("there is nothing to evaluate")


def test_without_held_out_rows_the_workers_are_not_asked(tmp_path: Path) -> None:
    of = spec(validation_fraction=0.0)
    run = Run(tmp_path, of=of)
    run.train(NeverEvaluating(task(of), DATA))
    assert [epoch.validation_scores for epoch in run.epochs] == [{}] * of.epochs


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("shards", [1, 3, 7])
def test_any_number_of_workers_gives_the_same_bits(workers: int, shards: int, tmp_path: Path) -> None:
    of = spec(shards=shards)
    run = Run(tmp_path, of=of)
    assert (run.train(UnreliableWorkers(task(of), DATA, workers)), run.epochs) == undisturbed(of)


CALLS = STEPS + SPEC.epochs


@settings(deadline=None, max_examples=40)
@given(
    st.dictionaries(st.integers(0, CALLS + 9), st.sets(st.integers(0, 2), min_size=1), max_size=8), st.integers(1, 3)
)
def test_any_losses_give_the_same_bits(losses: Mapping[int, set[int]], fewest: int) -> None:
    of = spec(workers=3, max_workers=3, min_workers=fewest)
    with in_memory() as directory:
        script = {call: sorted(lost) for call, lost in losses.items()}
        workers = UnreliableWorkers(task(of), DATA, 3, script, fewest=fewest)
        run = Run(Path(directory), of=of)
        assert (run.train(workers), run.epochs) == (BITS, EPOCHS)
    lost = run.of_kind(WorkerLost)
    # What is lost in the last call nobody needs any more, and has no step to come back in.
    assert len(lost) - len(run.of_kind(WorkerJoined)) == 3 - workers.ready()
    assert all(isinstance(e, WorkerLost) and e.reason == REASON for e in lost)


def test_a_lost_worker_is_reported_and_comes_back_at_a_later_step(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.train(UnreliableWorkers(task(), DATA, 3, {2: [1]})) == BITS
    assert run.of_kind(WorkerLost, WorkerJoined) == [WorkerLost(1, 2, REASON), WorkerJoined(1, 3, "ray_objects")]
    assert [p.workers for p in run.progress][:5] == [3, 3, 2, 3, 3]
    assert [p.shared_memory_workers for p in run.progress][:5] == [1, 1, 1, 1, 1]
    assert run.of_kind(StateChanged) == [StateChanged(Running())]


@pytest.mark.parametrize(("call", "step"), [(0, 0), (3, 3), (4, 4)], ids=["first step", "a step", "validation"])
def test_when_all_are_lost_the_job_waits_and_goes_on(call: int, step: int, tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.train(UnreliableWorkers(task(), DATA, 2, {call: [0, 1]})) == BITS
    first, *others, back, again, joined, joined_too = [
        e for e in run.events if not isinstance(e, EpochCompleted | HealthSampled)
    ]
    assert (first, others) == (
        StateChanged(Running()),
        [WorkerLost(1, step, REASON), WorkerLost(0, step, REASON)],
    )
    assert isinstance(back, StateChanged)
    assert back.state == WaitingForWorkers("0 workers are left of at least 1; waits up to 5 seconds for more")
    assert again == StateChanged(Running())
    assert [joined, joined_too] == [WorkerJoined(0, step, "ray_objects"), WorkerJoined(1, step, "ray_objects")]
    assert run.epochs == EPOCHS


def test_with_fewer_than_the_least_workers_the_job_waits(tmp_path: Path) -> None:
    """The step in which they are lost is finished by those that are left."""
    run = Run(tmp_path, of=spec(workers=3, max_workers=3, min_workers=2))
    assert run.train(UnreliableWorkers(task(), DATA, 3, {2: [0, 2]}, fewest=2)) == BITS
    waiting = WaitingForWorkers("1 workers are left of at least 2; waits up to 5 seconds for more")
    assert [e.state for e in run.events if isinstance(e, StateChanged)] == [Running(), waiting, Running()]
    assert [p.workers for p in run.progress][:5] == [3, 3, 1, 3, 3]
    assert run.of_kind(WorkerLost) == [WorkerLost(2, 2, REASON), WorkerLost(0, 2, REASON)]


def test_when_none_comes_back_the_job_fails_with_its_checkpoint(tmp_path: Path) -> None:
    run = Run(tmp_path, Policy(0.0, wait_seconds=0.05))
    with pytest.raises(WorkersLost, match=r"fewer than 1 workers, and no more came within 0\.05 seconds"):
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
            # What was told since the last step of the epoch may not have arrived, and is told again.
            for event in saved.unacknowledged:
                assert isinstance(event, EpochCompleted)
                epochs.remove(replace(event, duration_seconds=0.0))
    raise AssertionError("it never ended")


@settings(deadline=None, max_examples=40)
@given(st.sets(st.integers(1, STEPS - 1), max_size=5), st.sampled_from([NEVER, ALWAYS]))
def test_any_stops_give_the_same_bits(steps: set[int], policy: Policy) -> None:
    with in_memory() as directory:
        assert stopped_after(sorted(steps), Path(directory), policy) == (BITS, EPOCHS)


@pytest.mark.parametrize("optimizer", [Sgd(), Adam()], ids=str)
def test_a_crash_at_any_step_gives_the_same_bits(optimizer: Sgd | Adam, tmp_path: Path) -> None:
    """Nothing is written at the end; the next trainer has the last checkpoint, and takes some steps again."""
    of = spec(optimizer=optimizer)
    bits, epochs = undisturbed(of)
    seen: dict[int, EpochCompleted] = {}
    for at in (2, 5, 6, 9, 12, 99):
        # A checkpoint at every step, or none before the crash.
        run = Run(tmp_path, ALWAYS if at % 2 else NEVER, of=of, at_step=crash_at(at))
        with suppress(Crash):
            assert run.train() == bits
        for epoch in run.epochs:
            assert seen.setdefault(epoch.epoch, epoch) == epoch
    assert list(seen.values()) == epochs


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, STEPS), max_size=6), st.lists(st.booleans(), min_size=7, max_size=7))
def test_what_the_service_has_not_got_is_told_again(crashes: list[int], acknowledges: list[bool]) -> None:
    """A trainer's events die with it, unless the service took them in time; the checkpoint knows them all the same."""
    received: list[EpochCompleted] = []
    with in_memory() as directory:
        for place, at in enumerate([*crashes, STEPS + 1]):
            run = Run(Path(directory), ALWAYS, at_step=crash_at(at), acknowledges=acknowledges[place])
            try:
                assert run.train() == BITS
                received += run.epochs
            except Crash:
                if acknowledges[place]:
                    received += run.epochs
            if at == STEPS + 1:
                break
    known = {epoch.epoch: epoch for epoch in received}
    assert [known[number] for number in (1, 2, 3)] == EPOCHS
    assert all(known[epoch.epoch] == epoch for epoch in received)


def test_what_the_service_has_is_in_no_checkpoint(tmp_path: Path) -> None:
    for acknowledges, carried in ((True, []), (False, [1, 2])):
        directory = tmp_path / str(acknowledges)
        run = Run(directory, ALWAYS, at_step=crash_at(11), acknowledges=acknowledges)
        with pytest.raises(Crash):
            run.train()
        saved = Checkpoints(directory).load()
        assert saved is not None
        assert [e.epoch for e in saved.unacknowledged if isinstance(e, EpochCompleted)] == carried


class StopsWhileValidating(LocalWorkers):
    """The service stops while the held-out rows are looked at, after epochs 1 and 2."""

    def __init__(self, stop: threading.Event) -> None:
        super().__init__(task(), DATA, 1)
        self._stop = stop

    def evaluate(self) -> Sequence[Block]:
        self._stop.set()
        return super().evaluate()


def test_a_stop_during_validation_saves_that_step(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with pytest.raises(Stopped):
        run.train(StopsWhileValidating(run.stop))
    saved = Checkpoints(tmp_path).load()
    assert saved is not None
    assert run.events[-1] == CheckpointSaved(saved.step)
    assert run.epochs[-1].step == saved.step


def test_a_stop_in_the_last_step_comes_too_late(tmp_path: Path) -> None:
    assert Run(tmp_path, stop_after=STEPS).train() == BITS


DIVERGES = {
    "sgd": spec(learning_rate=1e30, optimizer=Sgd(), layers=(Dense(4), Dense(3))),
    "momentum": spec(learning_rate=1e37),
    "adam": spec(learning_rate=1e38, optimizer=Adam()),
}


@pytest.mark.parametrize("of", DIVERGES.values(), ids=DIVERGES)
@pytest.mark.parametrize("keep_best", [False, True])
def test_a_run_that_diverges_says_so_and_keeps_the_last_good_checkpoint(
    of: JobSpec, keep_best: bool, tmp_path: Path
) -> None:
    run = Run(tmp_path, ALWAYS, of=replace(of, keep_best=keep_best))
    with pytest.raises(Diverged, match=r"infinite.*smaller learning rate"):
        run.train()
    applied = [event.step for event in run.events if isinstance(event, CheckpointSaved)]
    saved = Checkpoints(tmp_path).load()
    if applied:
        assert saved is not None
        assert saved.step == applied[-1]
        assert finite(tmp_path)
    else:
        assert saved is None
    assert run.of_kind(RolledBack) == []


def test_a_state_that_is_not_finite_completes_no_epoch_and_is_never_the_best(tmp_path: Path) -> None:
    """Adam's squares overflow long before its parameters do: nothing would ever move again, and the loss looks well."""
    inputs = INPUTS.copy()
    inputs[:, 0] = 1e21
    of = spec(layers=(Dense(3),), optimizer=Adam(), keep_best=True, learning_rate=1e-30)
    run = Run(tmp_path, NEVER, of=of, data=Data(inputs, TARGETS))
    with pytest.raises(Diverged, match=r"step 4 made layers\.0\.weight infinite"):
        run.train()
    assert run.epochs == []
    assert list(tmp_path.iterdir()) == []


def test_a_validation_loss_that_is_not_finite_is_divergence(tmp_path: Path) -> None:
    run = Run(tmp_path, data=broken_validation())
    with pytest.raises(Diverged, match="the validation loss after step 4 is NaN or infinite"):
        run.train()
    assert run.epochs == []


def test_a_disk_error_stops_at_the_last_good_checkpoint(tmp_path: Path) -> None:
    run = Run(tmp_path, ALWAYS)
    full = largest_file(100)
    run.at_step = lambda step: full.__enter__() if step == 3 else None
    try:
        with pytest.raises(OSError, match="File too large"):
            run.train()
    finally:
        full.__exit__(None, None, None)
    assert run.of_kind(CheckpointSaved) == [CheckpointSaved(1), CheckpointSaved(2)]
    saved = Checkpoints(tmp_path).load()
    assert saved is not None
    assert saved.step == 2
    assert Run(tmp_path).train() == BITS


def test_time_is_counted_by_phase(tmp_path: Path) -> None:
    trainer = Trainer(
        SPEC, task(), LocalWorkers(task(), DATA, 2), Checkpoints(tmp_path), ALWAYS, Outbox(), threading.Event()
    )
    trainer.train()
    timing = trainer.timing
    timing.count()
    counted = {phase: sum(histogram.counts) for phase, histogram in timing.phases.items()}
    assert counted == {**dict.fromkeys(PHASES, 12), "validate": 3, "checkpoint": 11}
    assert sum(timing.steps.counts) == 12
    assert {phase for phase, seconds in timing.seconds.items() if seconds <= 0} == {"split", "gather"}  # no cluster
    assert sum(timing.seconds[phase] for phase in PHASES) == pytest.approx(timing.steps.seconds)
