"""Divergence and going back; and which checkpoints are kept."""

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from service.jobs.events import EpochCompleted, RolledBack
from service.jobs.spec import OnDivergence
from service.training.checkpoints import Checkpoints
from service.training.optimizers import Sgd
from service.training.state import Diverged
from service.training.trainer import Policy, Stopped
from tests.unit.service.examples import INPUTS, TARGETS, spec, task
from tests.unit.service.training_run import (
    ALWAYS,
    NEVER,
    STEPS,
    Crash,
    Run,
    broken_validation,
    crash_at,
    finite,
    in_memory,
)
from worker.layers import Dense, Layer, ReLU, Rescale, Residual, Tanh
from worker.losses import MeanSquaredError
from worker.task import Data

NUMBERS = Data(INPUTS, TARGETS.astype(np.float32))
ROLLS = spec(
    layers=(Dense(1),),
    loss=MeanSquaredError(),
    optimizer=Sgd(),
    learning_rate=300.0,
    on_divergence=OnDivergence.ROLLBACK,
    keep_best=True,
)
"""Grows by a factor from step to step, which the rate decides: overflows in the second epoch, and in the third."""


def rolled(run: Run) -> list[tuple[int, int, float]]:
    return [(e.diverged_step, e.step, e.learning_rate) for e in run.events if isinstance(e, RolledBack)]


@dataclass(frozen=True)
class RollBacks:
    """What an undisturbed run that rolls back comes to."""

    bits: bytes
    epochs: list[EpochCompleted]
    rolled: list[tuple[int, int, float]]


def undisturbed_roll_backs() -> RollBacks:
    with in_memory() as directory:
        run = Run(Path(directory), of=ROLLS, data=NUMBERS)
        bits = run.train()
        assert finite(Path(directory))
        return RollBacks(bits, run.epochs, rolled(run))


ROLLED = undisturbed_roll_backs()


def test_rolling_back_goes_to_the_start_of_the_epoch_with_half_the_rate() -> None:
    assert [epoch.epoch for epoch in ROLLED.epochs] == [1, 2, 3]
    assert {step for _, step, _ in ROLLED.rolled} == {4, 8}
    assert [rate for *_, rate in ROLLED.rolled] == [300 / 2**n for n in range(1, len(ROLLED.rolled) + 1)]
    for diverged, step, _ in ROLLED.rolled:
        assert step <= diverged <= step + 4
    assert np.isfinite(np.frombuffer(ROLLED.bits, np.float32)).all()
    rates = {epoch.epoch: epoch.learning_rate for epoch in ROLLED.epochs}
    assert rates[1] == 300.0
    assert rates[3] == ROLLED.rolled[-1][-1]


@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.tuples(st.integers(1, STEPS), st.booleans(), st.booleans()), max_size=8),
    st.sampled_from([NEVER, ALWAYS]),
)
def test_rolling_back_gives_the_same_bits_whatever_stops_or_crashes(
    ends: list[tuple[int, bool, bool]], policy: Policy
) -> None:
    """And each is told once: twice only with the same rate, which is no news."""
    epochs: list[EpochCompleted] = []
    rolls: list[tuple[int, int, float]] = []
    with in_memory() as directory:
        for at, stops, acknowledges in [*ends, (99, False, True)]:
            run = Run(Path(directory), policy, of=ROLLS, data=NUMBERS, acknowledges=acknowledges)
            run.at_step, run.stop_after = (lambda _: None, at) if stops else (crash_at(at), None)
            # A trainer that stops is asked for the last of its events; one that crashes takes them along.
            received = stops or acknowledges
            try:
                assert run.train() == ROLLED.bits
                received = True
            except (Crash, Stopped):
                pass
            if received:
                epochs += run.epochs
                rolls += rolled(run)
            if at == 99:
                break
        assert finite(Path(directory))
    assert {epoch.epoch: epoch for epoch in epochs} == {epoch.epoch: epoch for epoch in ROLLED.epochs}
    assert {rate: roll for roll in rolls for rate in roll[2:]} == {
        rate: roll for roll in ROLLED.rolled for rate in roll[2:]
    }


def test_the_start_is_a_checkpoint_for_a_job_that_may_go_back_to_it(tmp_path: Path) -> None:
    run = Run(tmp_path, of=replace(ROLLS, learning_rate=1e12), data=NUMBERS)
    with pytest.raises(Diverged, match="smaller learning rate"):
        run.train()
    assert {step for _, step, _ in rolled(run)} == {0}
    assert len(rolled(run)) == 10
    assert rolled(run)[-1][-1] == 1e12 / 1024
    saved = Checkpoints(tmp_path).load()
    assert saved is not None
    assert (saved.step, saved.rate_scale) == (0, 1 / 1024)
    np.testing.assert_array_equal(saved.params, task(ROLLS).network.initial(ROLLS.seed))


def test_ten_roll_backs_are_counted_over_all_trainers(tmp_path: Path) -> None:
    """One that begins anew has no more of them than its checkpoint leaves."""
    rolls: list[tuple[int, int, float]] = []
    for _ in range(3):
        run = Run(tmp_path, of=replace(ROLLS, learning_rate=1e12), data=NUMBERS)
        with pytest.raises(Diverged):
            run.train()
        rolls += rolled(run)
    assert len({rate for *_, rate in rolls}) == 10


def test_validation_that_diverges_is_rolled_back_too(tmp_path: Path) -> None:
    of = spec(on_divergence=OnDivergence.ROLLBACK)
    run = Run(tmp_path, of=of, data=broken_validation())
    with pytest.raises(Diverged, match="the validation loss after step 4"):
        run.train()
    assert [(diverged, step) for diverged, step, _ in rolled(run)] == [(4, 0)] * 10
    assert run.epochs == []


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_the_last_ones_are_kept(keep: int, tmp_path: Path) -> None:
    Run(tmp_path, ALWAYS, of=spec(keep_last=keep)).train()
    names = sorted(path.name for path in tmp_path.iterdir())
    # There is none after the last step: the job has ended then.
    assert [int(name.split("-")[1]) for name in names] == list(range(STEPS - keep, STEPS))


def test_the_best_is_that_of_the_least_validation_loss(tmp_path: Path) -> None:
    """The rate is so large that the loss goes up again."""
    of = spec(keep_best=True, learning_rate=0.9, epochs=8)
    run = Run(tmp_path, of=of)
    run.train()
    losses = {epoch.step: epoch.validation_loss or 0.0 for epoch in run.epochs}
    best = min(losses, key=losses.__getitem__)
    assert best != max(losses)
    (path,) = tmp_path.iterdir()
    assert path.name.startswith(f"best-{best:012d}-")
    assert run.best_loss == losses[best]
    with in_memory() as directory:
        stops = Run(Path(directory), of=of, stop_after=best)
        with pytest.raises(Stopped):
            stops.train()
        saved = Checkpoints(Path(directory)).load()
    assert saved is not None
    np.testing.assert_array_equal(load_file(path)["params"], saved.params)


def test_the_best_is_remembered_over_a_stop(tmp_path: Path) -> None:
    of = spec(keep_best=True, learning_rate=0.9, epochs=8)
    whole = Run(tmp_path / "whole", of=of)
    whole.train()
    for until in (3, 9, 17, 25, None):
        run = Run(tmp_path / "parts", of=of, stop_after=until)
        with suppress(Stopped):
            run.train()
    assert run.best_loss == whole.best_loss
    (best,) = (tmp_path / "parts").glob("best-*")
    (expected,) = (tmp_path / "whole").glob("best-*")
    assert load_file(best)["params"].tobytes() == load_file(expected)["params"].tobytes()


OVERFLOWS = Residual((Dense(4), Rescale((1e30,)), Rescale((1e30,)), Dense(4)))


@pytest.mark.parametrize("layers", [(Dense(4), OVERFLOWS, ReLU(), Dense(3)), (Dense(4), OVERFLOWS, Dense(3), Tanh())])
def test_the_layer_that_turns_nan_is_named_and_not_those_that_have_it_from_there(
    layers: tuple[Layer, ...], tmp_path: Path
) -> None:
    """Backward it breaks the gradients of all layers in front of it, forward the outputs of all behind it."""
    with pytest.raises(
        Diverged, match=r"^NaN or infinite numbers come out of layers\.1\.layers\.2 \(rescale\): .* in step 1 "
    ):
        Run(tmp_path, of=spec(layers=layers, optimizer=Sgd())).train()


def test_the_layer_that_turns_nan_on_held_out_rows_is_named_if_the_next_ones_show_it_too(tmp_path: Path) -> None:
    of = spec(layers=(Dense(4), Dense(3)), optimizer=Sgd(), batch_size=1000, learning_rate=1e30)
    with pytest.raises(Diverged, match=r"come out of layers\.\d \(dense\): the validation loss after step 1 is NaN"):
        Run(tmp_path, of=of).train()
