"""Schedules against their formulas, and against PyTorch's."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule.v1 import optimizer_pb2 as pb
from service.training.schedules import (
    CURVES,
    ConstantRate,
    CosineDecay,
    Curve,
    ExponentialDecay,
    OneCycle,
    ReduceOnPlateau,
    Schedule,
    StepDecay,
    WarmUp,
)
from service.training.stopping import EarlyStopping, Streak
from tests.unit.rows import row_name
from worker.errors import InvalidValue

REFERENCE = np.load(Path(__file__).parents[2] / "references" / "optimizers.npz")
STEPS_PER_EPOCH, EPOCHS = 5, 8
TOTAL = STEPS_PER_EPOCH * EPOCHS


def factors(curve: Curve, warm_up: WarmUp | None = None, total: int = TOTAL) -> list[float]:
    return [Schedule(curve, warm_up).at(step, STEPS_PER_EPOCH, total) for step in range(total)]


BY_FORMULA: list[tuple[Curve, Callable[[int], float]]] = [
    (ConstantRate(), lambda _: 1.0),
    (ReduceOnPlateau(), lambda _: 1.0),
    (StepDecay(2, factor=0.5), lambda step: 0.5 ** (step // 10)),
    (StepDecay(milestones=(1, 4), factor=0.2), lambda step: 0.2 ** ((step >= 5) + (step >= 20))),
    (ExponentialDecay(0.8), lambda step: 0.8 ** (step / 5)),
    (CosineDecay(), lambda step: (1 + math.cos(math.pi * step / 40)) / 2),
    (CosineDecay(0.2), lambda step: 0.2 + 0.8 * (1 + math.cos(math.pi * step / 40)) / 2),
    (
        OneCycle(0.525, 0.1, 0.01),
        lambda step: (
            0.1 + 0.9 * (1 - math.cos(math.pi * step / 20)) / 2
            if step <= 20
            else 0.01 + 0.99 * (1 + math.cos(math.pi * (step - 20) / 19)) / 2
        ),
    ),
]


@pytest.mark.parametrize(("curve", "formula"), BY_FORMULA, ids=row_name)
def test_by_formula(curve: Curve, formula: Callable[[int], float]) -> None:
    assert factors(curve) == pytest.approx([formula(step) for step in range(TOTAL)], rel=1e-12)


@pytest.mark.parametrize(
    ("name", "curve"),
    [
        ("cosine", CosineDecay(0.1)),
        ("one_cycle", OneCycle()),
        ("step", StepDecay(3, factor=0.5)),
        ("milestones", StepDecay(milestones=(2, 3, 7))),
        ("exponential", ExponentialDecay(0.9)),
    ],
)
def test_those_of_pytorch(name: str, curve: Curve) -> None:
    """Those that PyTorch changes at epochs are compared there."""
    expected = REFERENCE[f"rate.{name}"]
    found = factors(curve)[:: TOTAL // len(expected)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


WARM = [
    (WarmUp(steps=4), [1 / 4, 2 / 4, 3 / 4, 1, 1]),
    (WarmUp(epochs=0.4, start=0.5), [0.75, 1, 1, 1, 1]),
    (WarmUp(epochs=1e-30), [1, 1, 1, 1, 1]),
    (WarmUp(steps=1), [1, 1, 1, 1, 1]),
    (WarmUp(epochs=2), [0.1, 0.2, 0.3, 0.4, 0.5]),
]


@pytest.mark.parametrize(("warm_up", "expected"), WARM, ids=str)
def test_a_warm_up_is_a_straight_line(warm_up: WarmUp, expected: list[float]) -> None:
    assert factors(ConstantRate(), warm_up)[:5] == pytest.approx(expected)


def test_a_warm_up_multiplies_and_the_cosine_begins_after_it() -> None:
    warm = WarmUp(steps=8)
    assert factors(StepDecay(1, factor=0.5), warm)[7:9] == [0.5, 0.5]
    cosine = factors(CosineDecay(), warm)
    assert cosine[:9] == pytest.approx([*((step + 1) / 8 for step in range(8)), 1.0])
    assert cosine[24] == pytest.approx(0.5)


curves = st.one_of(
    st.just(ConstantRate()),
    st.builds(StepDecay, st.integers(1, 9), st.just(()), st.floats(0.01, 1)),
    st.builds(ExponentialDecay, st.floats(0.01, 1)),
    st.builds(CosineDecay, st.floats(0, 1)),
    st.builds(OneCycle, st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
)


@settings(deadline=None, max_examples=50)
@given(curves, st.none() | st.builds(WarmUp, st.integers(1, 99), st.none(), st.floats(0, 1)), st.integers(1, 40))
def test_every_factor_is_a_share_also_in_short_jobs(curve: Curve, warm_up: WarmUp | None, total: int) -> None:
    if isinstance(curve, OneCycle):
        warm_up = None
    assert all(0 <= factor <= 1 + 1e-15 for factor in factors(curve, warm_up, total))


def test_a_million_epochs_are_no_error() -> None:
    for curve in (StepDecay(1, factor=1e-3), ExponentialDecay(1e-3)):
        assert Schedule(curve).at(10**12 - 1, 10**6, 10**12) == 0.0
    assert Schedule(ConstantRate(), WarmUp(epochs=1e38)).at(5, 10**6, 10**12) == pytest.approx(0.0)


def test_waiting_is_that_of_pytorch() -> None:
    plateau = ReduceOnPlateau(0.5, 2, 0.1, 0.2)
    streak, factor, found = Streak(), 1.0, []
    for loss in REFERENCE["losses"]:
        streak = streak.after(float(loss), plateau.min_delta)
        if streak.epochs >= plateau.patience:
            streak, factor = Streak(streak.least), max(factor * plateau.factor, plateau.floor)
        found.append(factor)
    assert found == list(REFERENCE["plateau"])


@pytest.mark.parametrize(
    ("cls", "field", "values"),
    [
        (StepDecay, "every", ({}, {"every": 1, "milestones": (1,)}, {"every": 0}, {"every": 1_000_001})),
        (StepDecay, "milestones", ({"milestones": (0, 1)}, {"milestones": (2, 2)}, {"milestones": (3, 1)})),
        (StepDecay, "milestones", ({"milestones": tuple(range(1, 1002))},)),
        (StepDecay, "factor", tuple({"every": 1, "factor": v} for v in (0.0, 1.1, -1.0, math.nan))),
        (ExponentialDecay, "factor", tuple({"factor": v} for v in (0.0, 1.1, math.nan))),
        (CosineDecay, "floor", tuple({"floor": v} for v in (-0.1, 1.1, math.nan))),
        (OneCycle, "rising", tuple({"rising": v} for v in (-0.1, 1.1, math.nan))),
        (OneCycle, "start", ({"start": -0.1}, {"start": 2.0})),
        (OneCycle, "end", ({"end": -0.1}, {"end": 2.0})),
        (ReduceOnPlateau, "factor", ({"factor": 0.0},)),
        (ReduceOnPlateau, "patience", ({"patience": 0}, {"patience": 1_000_001})),
        (ReduceOnPlateau, "min_delta", tuple({"min_delta": v} for v in (-1.0, math.nan, math.inf))),
        (ReduceOnPlateau, "floor", ({"floor": 1.5},)),
        (WarmUp, "steps", ({}, {"steps": 0}, {"steps": 10**9 + 1}, {"steps": 1, "epochs": 1.0})),
        (WarmUp, "epochs", tuple({"epochs": v} for v in (0.0, -1.0, math.nan, math.inf))),
        (WarmUp, "start", ({"steps": 1, "start": 1.5},)),
        (EarlyStopping, "patience", ({"patience": 0}, {"patience": -1})),
        (EarlyStopping, "min_delta", tuple({"min_delta": v} for v in (-1.0, math.nan, math.inf))),
    ],
)
def test_values_out_of_range_are_refused(
    cls: Callable[..., Any], field: str, values: tuple[dict[str, Any], ...]
) -> None:
    for value in values:
        with pytest.raises(InvalidValue, match=rf"^{field}: .*must") as refused:
            cls(**value)
        assert refused.value.field == field


def test_one_cycle_has_a_warm_up_already() -> None:
    with pytest.raises(InvalidValue, match="warm_up: can't be set with one_cycle"):
        Schedule(OneCycle(), WarmUp(steps=3))


def test_the_table_has_them_all() -> None:
    assert list(CURVES) == [field.name for field in pb.Schedule.DESCRIPTOR.oneofs_by_name["kind"].fields]
