"""What changes as a job goes on - learning rate, accumulated gradients, early stopping - and the bits that stay."""

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from service.jobs.events import EpochCompleted, RolledBack
from service.jobs.spec import JobSpec, OnDivergence, Precision
from service.training.checkpoints import Checkpoints
from service.training.optimizers import Adam, AdamW, RMSprop, Sgd
from service.training.pace import Pace
from service.training.regularization import Regularization
from service.training.schedules import CosineDecay, ReduceOnPlateau, Schedule, StepDecay, WarmUp
from service.training.state import Diverged
from service.training.stopping import EarlyStopping
from service.training.trainer import Stopped
from tests.unit.service.examples import DATA, INPUTS, ROWS, SPEC, TARGETS, spec, task
from tests.unit.service.training_run import ALWAYS, NEVER, Crash, Run, crash_at, in_memory, undisturbed
from tests.unit.service.unreliable import UnreliableWorkers
from worker.arrays import Array
from worker.layers import Dense
from worker.losses import MeanSquaredError
from worker.task import Data

DOUBLE = Precision.FLOAT64
WEIGHED = Data(INPUTS, TARGETS, np.linspace(0, 3, ROWS).astype(np.float32))


@pytest.fixture
def memory() -> Iterator[Path]:
    with in_memory() as directory:
        yield Path(directory)


def parameters(of: JobSpec, data: Data = DATA) -> Array:
    bits, _ = undisturbed(of, data)
    return np.frombuffer(bits, of.precision.dtype)


@pytest.mark.parametrize("optimizer", [Sgd(), Adam()], ids=str)
@pytest.mark.parametrize("data", [DATA, WEIGHED], ids=["alike", "weighed"])
def test_accumulated_steps_are_one_step_of_all_their_rows(optimizer: Sgd | Adam, data: Data) -> None:
    """Two batches of 7 rows, and then of 7 and 3: as batches of 14 rows, and then of 10."""
    of = spec(optimizer=optimizer, precision=DOUBLE, regularization=Regularization(clip_norm=0.3, l2=0.01))
    parts, whole = parameters(replace(of, accumulate=2), data), parameters(replace(of, batch_size=14), data)
    np.testing.assert_allclose(parts, whole, rtol=1e-10, atol=1e-12)


def test_what_an_epoch_leaves_is_an_update_of_its_own() -> None:
    of = spec(optimizer=Adam(), precision=DOUBLE, accumulate=1_000)
    np.testing.assert_allclose(parameters(of), parameters(spec(optimizer=Adam(), precision=DOUBLE, batch_size=24)))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4))
def test_updates_are_counted_without_counting(accumulate: int, steps_per_epoch: int, epochs: int) -> None:
    pace, made, pending = Pace(spec(accumulate=accumulate, epochs=epochs), steps_per_epoch), 0, 0
    for step in range(steps_per_epoch * epochs):
        assert pace.update(step) == made
        pending += 1
        assert pace.ends_update(step) == (pending == accumulate or (step + 1) % steps_per_epoch == 0)
        if pace.ends_update(step):
            made, pending = made + 1, 0


def test_between_updates_the_parameters_rest(memory: Path) -> None:
    seen = []
    for step in range(1, 5):
        run = Run(memory / str(step), of=spec(accumulate=3), stop_after=step)
        with pytest.raises(Stopped):
            run.train()
        saved = Checkpoints(memory / str(step)).load()
        assert saved is not None
        assert saved.pending is not None
        seen.append((saved.params.tobytes(), saved.pending.sums.count, bool(saved.pending.vector.any())))
    start = task().network.initial(SPEC.seed).tobytes()
    assert [(bits == start, count, pending) for bits, count, pending in seen] == [
        (True, 7, True),
        (True, 14, True),
        (False, 0, False),
        (False, 0, False),
    ]


def test_a_gradient_that_breaks_between_updates_is_found_there(memory: Path) -> None:
    inputs = INPUTS.copy()
    inputs[task().shards.training(1, 0)] = np.nan
    run = Run(memory, ALWAYS, of=spec(accumulate=4), data=Data(inputs, TARGETS))
    with pytest.raises(Diverged, match="in step 2"):
        run.train()
    saved = Checkpoints(memory).load()
    assert saved is not None
    assert saved.step == 1


def test_the_rate_follows_the_schedule(memory: Path) -> None:
    schedule = Schedule(CosineDecay(0.1), WarmUp(steps=3))
    run = Run(memory, of=spec(schedule=schedule, learning_rate=0.5))
    run.train()
    rates = [
        0.5 * min((s + 1) / 3, 1) * (0.1 + 0.9 * (1 + math.cos(math.pi * max(s - 3, 0) / 9)) / 2) for s in range(12)
    ]
    assert [p.learning_rate for p in run.progress] == pytest.approx(rates)
    assert [epoch.learning_rate for epoch in run.epochs] == pytest.approx(rates[3::4])


def test_a_step_takes_the_rate_of_its_schedule() -> None:
    """Gradient descent that is ten times slower from the second epoch on, as one job and as two rates."""
    of = spec(optimizer=Sgd(), precision=DOUBLE, learning_rate=0.5, epochs=2)
    slower = parameters(replace(of, schedule=Schedule(StepDecay(1, factor=1e-9))))
    np.testing.assert_allclose(slower, parameters(replace(of, epochs=1)), atol=1e-7)


OSCILLATES = spec(learning_rate=0.9, epochs=12)
"""Its validation loss goes down, and up again."""
LOSSES = [epoch.validation_loss or 0.0 for epoch in undisturbed(OSCILLATES)[1]]


def expected_stop(patience: int, min_delta: float) -> int:
    """The number of the last epoch, reckoned from the losses of all."""
    least, waited = math.inf, 0
    for number, loss in enumerate(LOSSES, start=1):
        least, waited = (loss, 0) if loss < least - min_delta else (least, waited + 1)
        if waited == patience:
            return number
    return len(LOSSES)


@pytest.mark.parametrize(("patience", "min_delta"), [(1, 0.0), (2, 0.0), (3, 0.05), (11, 0.0), (100, 0.0), (1, 10.0)])
def test_it_stops_when_it_is_told_to_and_gives_the_best(patience: int, min_delta: float, memory: Path) -> None:
    run = Run(memory / "early", of=replace(OSCILLATES, early_stopping=EarlyStopping(patience, min_delta)))
    bits = run.train()
    last = expected_stop(patience, min_delta)
    best = min(range(last), key=LOSSES.__getitem__) + 1
    assert run.epochs[-1].epoch == last
    assert [epoch.best_epoch for epoch in run.epochs] == [
        min(range(n), key=LOSSES.__getitem__) + 1 for n in range(1, last + 1)
    ]
    assert run.result.epoch == best
    assert replace(run.result, duration_seconds=0.0) == run.epochs[best - 1]
    assert bits == undisturbed(replace(OSCILLATES, epochs=best))[0]
    assert run.stopped_early == (
        f"stopped early at epoch {last}: best validation loss {LOSSES[best - 1]:.6g} at epoch {best}"
        if last < 12
        else ""
    )


def test_a_score_is_to_become_large(memory: Path) -> None:
    scores = [epoch.validation_accuracy or 0.0 for epoch in undisturbed(OSCILLATES)[1]]
    run = Run(memory, of=replace(OSCILLATES, early_stopping=EarlyStopping(100, score="accuracy")))
    bits = run.train()
    best = scores.index(max(scores)) + 1
    assert run.result.epoch == best < 12
    assert bits == undisturbed(replace(OSCILLATES, epochs=best))[0]
    few = Run(memory / "few", of=replace(OSCILLATES, early_stopping=EarlyStopping(1, score="accuracy")))
    few.train()
    assert "best validation accuracy" in few.stopped_early


def test_without_its_best_checkpoint_it_gives_no_other(memory: Path) -> None:
    run = Run(memory, of=replace(OSCILLATES, early_stopping=EarlyStopping(3)))

    def lose(_: int) -> None:
        for path in memory.glob("best-*"):
            path.write_bytes(b"")

    run.at_step = lose
    with pytest.raises(OSError, match="the best checkpoint is gone or damaged"):
        run.train()


PLATEAU = Schedule(ReduceOnPlateau(0.5, 1, floor=0.1))


def test_held_out_rows_that_weigh_nothing_say_nothing(memory: Path) -> None:
    """A loss of 0 would be the best there can be, of whatever epoch came first."""
    of = spec(early_stopping=EarlyStopping(patience=1), schedule=Schedule(ReduceOnPlateau(patience=1)))
    weights = np.ones(ROWS, np.float32)
    for shard in range(of.shards):
        weights[of.shards_of(ROWS).validation(shard)] = 0
    run = Run(memory, of=of, data=Data(INPUTS, TARGETS, weights))
    run.train()
    assert [(epoch.epoch, epoch.validation_loss, epoch.best_epoch) for epoch in run.epochs] == [
        (1, None, 0),
        (2, None, 0),
        (3, None, 0),
    ]
    assert {epoch.learning_rate for epoch in run.epochs} == {of.learning_rate}


def test_the_rate_falls_when_the_loss_does_not(memory: Path) -> None:
    run = Run(memory, of=replace(OSCILLATES, schedule=PLATEAU))
    run.train()
    rate, least, expected = 0.9, math.inf, []
    for epoch in run.epochs:
        expected.append(rate)
        assert epoch.validation_loss is not None
        rate = rate if epoch.validation_loss < least else max(rate / 2, 0.09)
        least = min(least, epoch.validation_loss)
    assert [epoch.learning_rate for epoch in run.epochs] == pytest.approx(expected)
    assert expected[-1] < 0.9


NUMBERS = Data(INPUTS, TARGETS.astype(np.float32))
JOBS = {
    "accumulated": (spec(optimizer=Adam(), accumulate=3), DATA),
    "accumulated and clipped": (
        spec(optimizer=AdamW(), accumulate=2, regularization=Regularization(0.1, 0.05, l1=0.01), precision=DOUBLE),
        WEIGHED,
    ),
    "plateau": (replace(OSCILLATES, schedule=PLATEAU, epochs=8), DATA),
    "early": (replace(OSCILLATES, early_stopping=EarlyStopping(2)), DATA),
    "early by score": (
        replace(OSCILLATES, early_stopping=EarlyStopping(2, score="accuracy"), optimizer=RMSprop(momentum=0.5)),
        DATA,
    ),
    "rolls back": (
        spec(
            layers=(Dense(1),),
            loss=MeanSquaredError(),
            optimizer=Sgd(),
            learning_rate=1000.0,
            epochs=6,
            on_divergence=OnDivergence.ROLLBACK,
            accumulate=2,
            schedule=replace(PLATEAU, warm_up=WarmUp(steps=2)),
            early_stopping=EarlyStopping(3),
        ),
        NUMBERS,
    ),
}
UNDISTURBED = {name: undisturbed(of, data) for name, (of, data) in JOBS.items()}


@pytest.mark.parametrize("name", JOBS)
@settings(deadline=None, max_examples=6)
@given(st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=5), st.sampled_from([NEVER, ALWAYS]))
def test_any_stops_and_crashes_give_the_same_bits(name: str, ends: list[tuple[int, bool]], policy: object) -> None:
    of, data = JOBS[name]
    bits, told = UNDISTURBED[name]
    epochs: dict[int, EpochCompleted] = {}
    with in_memory() as directory:
        for at, stops in [*ends, (10_000, False)]:
            run = Run(Path(directory), policy, of=of, data=data)  # type: ignore[arg-type]
            run.at_step, run.stop_after = (lambda _: None, at) if stops else (crash_at(at), None)
            with suppress(Crash, Stopped):
                assert run.train() == bits
            epochs |= {epoch.epoch: epoch for epoch in run.epochs}
    assert list(epochs.values()) == told


def test_the_jobs_do_what_they_are_called() -> None:
    for name in ("early", "early by score"):
        assert len(UNDISTURBED[name][1]) < JOBS[name][0].epochs
    of, data = JOBS["rolls back"]
    with in_memory() as directory:
        run = Run(Path(directory), of=of, data=data)
        run.train()
    assert run.of_kind(RolledBack)
    assert len({epoch.learning_rate for epoch in UNDISTURBED["plateau"][1]}) > 1


@pytest.mark.parametrize("name", [name for name, (of, _) in JOBS.items() if of.precision is Precision.FLOAT32])
def test_any_number_of_workers_gives_the_same_bits(name: str, memory: Path) -> None:
    of, data = JOBS[name]
    run = Run(memory, of=of, data=data)
    assert run.train(UnreliableWorkers(task(of), data, 5, {3: [1], 6: [0, 2]})) == UNDISTURBED[name][0]


def test_double_precision_is_double_throughout(memory: Path) -> None:
    of = spec(precision=DOUBLE, optimizer=Adam())
    run = Run(memory, of=of, stop_after=5)
    with pytest.raises(Stopped):
        run.train()
    (path,) = memory.iterdir()
    assert {str(vector.dtype) for vector in load_file(path).values()} == {"float64"}
    start = task().network.initial(SPEC.seed, np.float64)
    np.testing.assert_array_equal(start.astype(np.float32), task().network.initial(SPEC.seed))
    assert (start != start.astype(np.float32)).any()
    np.testing.assert_allclose(parameters(of), parameters(replace(of, precision=Precision.FLOAT32)), atol=1e-4)
