"""Looks at the layers: figures against their formulas, and the same whoever computed and whatever happened."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.jobs.health import HealthSampled, LayerHealth
from service.jobs.spec import JobSpec, Precision
from service.training.optimizers import Sgd
from service.training.pace import MOST_UPDATES, Pace
from service.training.regularization import Regularization
from tests.unit.service.examples import DATA, ROWS, SPEC, spec, task
from tests.unit.service.training_run import ALWAYS, STEPS, Crash, Run, crash_at
from tests.unit.service.unreliable import UnreliableWorkers
from worker.gradient import tree_sum
from worker.layers import Dense, Embedding, ReLU, Residual, Tanh
from worker.losses import MeanSquaredError
from worker.network import Traits
from worker.task import Data

RATE = 0.5


def sampled(run: Run) -> list[HealthSampled]:
    return [event for event in run.events if isinstance(event, HealthSampled)]


def samples(run: Run) -> list[HealthSampled]:
    """All but what follows from the machines."""
    return [replace(event, straggler_ratio=None) for event in sampled(run)]


def trained(of: JobSpec, directory: Path, data: Data = DATA) -> list[HealthSampled]:
    run = Run(directory, of=of, data=data)
    run.train()
    return sampled(run)


def lengths(health: HealthSampled) -> list[tuple[float, float, float]]:
    """Gradient, parameters and change of the layers that learn."""
    found = [(layer.gradient_norm, layer.parameter_norm, layer.update_ratio) for layer in health.layers]
    return [(g, p, u) for g, p, u in found if g is not None and p is not None and u is not None]


@pytest.mark.parametrize("precision", list(Precision), ids=lambda precision: precision.name)
def test_the_first_step_is_the_formula(precision: Precision, tmp_path: Path) -> None:
    """Reckoned from all rows of the batch at once, in double precision."""
    of = spec(optimizer=Sgd(), learning_rate=RATE, precision=precision)
    first = trained(of, tmp_path)[0]
    whole = task(spec(shards=1))
    start = whole.network.initial(SPEC.seed).astype(np.float64)
    computed = whole.gradient(DATA, start, 0, 0)
    gradient = computed.vector / computed.sums.count
    weights: list[list[slice]] = [[], [], []]
    for slot in whole.network.slots:
        weights[slot.layer].append(slice(slot.offset, slot.offset + slot.size))
    norms = [
        tuple(float(np.linalg.norm(np.concatenate([vector[part] for part in parts]))) for vector in (gradient, start))
        for parts in (weights[0], weights[2])
    ]
    assert first.step == 1
    assert first.gradient_norm == pytest.approx(np.linalg.norm(gradient), rel=1e-5)
    assert [(layer.layer, layer.kind) for layer in first.layers] == [
        ("layers.0", "dense"),
        ("layers.1", "relu"),
        ("layers.2", "dense"),
    ]
    assert lengths(first) == [pytest.approx((g, p, RATE * g / p), rel=1e-5) for g, p in norms]
    assert first.layers[1].dead_ratio is not None
    assert first.layers[1].gradient_norm is None


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_and_losses_do_not_show(workers: int, tmp_path: Path) -> None:
    undisturbed = Run(tmp_path / "undisturbed")
    undisturbed.train()
    run = Run(tmp_path / "disturbed", of=SPEC)
    run.train(UnreliableWorkers(task(), DATA, workers, {2: [0], 6: list(range(workers))}))
    assert len(samples(run)) == STEPS
    assert samples(run) == samples(undisturbed)


@pytest.mark.parametrize("step", [1, 5, 11])
def test_a_trainer_that_begins_anew_tells_the_same(step: int, tmp_path: Path) -> None:
    undisturbed = Run(tmp_path / "undisturbed")
    undisturbed.train()
    crashes = Run(tmp_path / "job", ALWAYS, at_step=crash_at(step))
    with pytest.raises(Crash):
        crashes.train()
    again = Run(tmp_path / "job")
    again.train()
    told = {event.step: event for event in samples(crashes)}
    for event in samples(again):
        assert told.setdefault(event.step, event) == event
    assert list(told.values()) == samples(undisturbed)


def test_where_several_steps_share_an_update_the_looks_are_at_updates(tmp_path: Path) -> None:
    of = spec(optimizer=Sgd(), learning_rate=RATE, accumulate=3)
    events = trained(of, tmp_path)
    assert [event.step for event in events] == [3, 4, 7, 8, 11, 12]  # the last of an epoch makes one too
    params = task().network.initial(SPEC.seed)
    three = [task().gradient(DATA, params, step, shard) for step in range(3) for shard in range(SPEC.shards)]
    total = tree_sum(three)
    assert events[0].gradient_norm == pytest.approx(np.linalg.norm(total.vector) / total.sums.count, rel=1e-5)
    for event in events:
        for gradient, norm, ratio in lengths(event):
            assert ratio == pytest.approx(RATE * gradient / norm, rel=1e-3)


def test_clipping_comes_after_the_look(tmp_path: Path) -> None:
    plain = trained(spec(optimizer=Sgd(), learning_rate=RATE), tmp_path / "plain")[0]
    clip = Regularization(clip_norm=plain.gradient_norm / 4)
    of = spec(optimizer=Sgd(), learning_rate=RATE, regularization=clip)
    clipped = trained(of, tmp_path / "clipped")[0]
    assert clipped.gradient_norm == plain.gradient_norm
    for (_, _, before), (_, _, after) in zip(lengths(plain), lengths(clipped), strict=True):
        assert after == pytest.approx(before / 4, rel=1e-4)


def test_what_does_not_apply_to_a_layer_is_none(tmp_path: Path) -> None:
    layers = (Dense(5), Tanh(), Residual((Dense(5), ReLU())), Dense(3))
    traits = (Traits("first", frozen=True), Traits(), Traits("block"), Traits())
    first = trained(spec(layers=layers, traits=traits), tmp_path)[0]
    applies = [_applies(layer) for layer in first.layers]
    assert [(layer.layer, layer.kind) for layer in first.layers] == [
        ("first", "dense"),
        ("layers.1", "tanh"),
        ("block.layers.0", "dense"),
        ("block.layers.1", "relu"),
        ("layers.3", "dense"),
    ]
    assert applies == [[], ["saturated"], ["learns"], ["dead"], ["learns"]]
    squares = [layer.gradient_norm**2 for layer in first.layers if layer.gradient_norm is not None]
    assert first.gradient_norm == pytest.approx(math.sqrt(sum(squares)))


def _applies(layer: LayerHealth) -> list[str]:
    learns = {layer.gradient_norm is None, layer.parameter_norm is None, layer.update_ratio is None}
    assert len(learns) == 1
    figures = {"learns": layer.gradient_norm, "dead": layer.dead_ratio, "saturated": layer.saturated_ratio}
    return [name for name, figure in figures.items() if figure is not None]


def test_of_a_table_the_rows_that_were_looked_up_count(tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    tokens = Data(random.integers(30, size=(ROWS, 4)), random.standard_normal((ROWS, 4, 3)))
    of = spec(layers=(Embedding(3_000, 3),), loss=MeanSquaredError(), optimizer=Sgd(), learning_rate=RATE)
    first = trained(of, tmp_path, tokens)[0]
    network = task(of).network
    rows = np.unique(_rows(of, tokens))
    table = network.slots[0].view(network.initial(SPEC.seed))[rows]
    ((gradient, norm, ratio),) = lengths(first)
    assert norm == pytest.approx(np.linalg.norm(table), rel=1e-6)
    assert gradient == first.gradient_norm
    assert ratio == pytest.approx(RATE * gradient / norm, rel=1e-4)


def _rows(of: JobSpec, data: Data) -> Any:
    shards = task(of).shards
    return data.inputs[np.concatenate([shards.training(0, shard) for shard in range(of.shards)])]


def test_the_newest_look_is_part_of_the_progress(tmp_path: Path) -> None:
    run = Run(tmp_path, of=spec(epochs=12))
    run.train()
    looks = [progress.health for progress in run.progress]
    assert [look.step for look in looks[:20] if look] == list(range(1, 21))
    assert [look.step for look in looks[20:] if look] == [step // 2 * 2 for step in range(21, 40)] + [
        step // 4 * 4 for step in range(40, 49)
    ]
    assert looks[-1] == sampled(run)[-1]


def pace(steps: int, **changes: Any) -> Pace:
    return Pace(spec(epochs=1, **changes), steps)


def looks_of(of: Pace) -> list[int]:
    """All steps that are looked at."""
    looks = [of.next_look(0)]
    while looks[-1] + 1 < of.total_steps:
        looks.append(of.next_look(looks[-1] + 1))
    return looks


@given(st.integers(1, 30), st.integers(1, 300), st.integers(1, 40))
def test_the_next_look_is_the_same_from_every_step_before_it(epochs: int, steps: int, accumulate: int) -> None:
    of = Pace(spec(epochs=epochs, accumulate=accumulate), steps)
    following = [of.next_look(step) for step in range(of.total_steps)]
    assert following == sorted(following)
    for step, look in enumerate(following):
        assert look >= step
        assert following[look] == look
    assert following[-1] == of.total_steps - 1
    first = [step for step in range(of.total_steps) if of.ends_update(step)][:20]
    assert looks_of(of)[: len(first)] == first


def test_looks_are_ever_further_apart_but_never_too_far() -> None:
    of = pace(100_000)
    looks = [step + 1 for step in looks_of(of)]
    assert looks[-1] == 100_000
    for before, after in pairwise(looks):
        assert after - before <= min(max(before / 10, 1), MOST_UPDATES)
    assert len(looks) < 100_000 / 100


def test_what_is_told_grows_with_the_logarithm() -> None:
    of = pace(200_000)
    told = [step + 1 for step in looks_of(of) if of.is_told(step)]
    assert told[-1] == 200_000
    assert len(told) < 170
    for before, after in pairwise(told):
        assert after - before <= max(before / 10, 1)


@pytest.mark.parametrize("accumulate", [3, 128])
def test_looks_fall_on_steps_that_make_an_update(accumulate: int) -> None:
    of = pace(20_000, accumulate=accumulate)
    looks = looks_of(of)
    assert len(looks) > 20
    assert all(of.ends_update(step) for step in looks)


def test_stragglers_are_told_once_a_step_is_over(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.train(UnreliableWorkers(task(), DATA, 3))
    first, *later = (event.straggler_ratio for event in sampled(run))
    assert first is None
    assert set(later) == {3.5 / 2.5}
    assert {event.straggler_ratio for event in trained(SPEC, tmp_path / "alone")} == {None}
