"""Optimizers against their papers."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.training.optimizers import OPTIMIZERS, Adagrad, Adam, AdamW, Momentum, Optimizer, RMSprop, Sgd
from service.training.regularization import Regularization
from service.training.update import Update
from tests.unit.rows import row_name
from worker.arrays import Array
from worker.blocks import Block
from worker.errors import InvalidValue
from worker.gradient import Gradient, Sums

GRADIENTS = (1.0, -2.0, 3.0)

HAND: list[tuple[Optimizer, tuple[float, float, float]]] = [
    (Sgd(), (1.0, -2.0, 3.0)),
    # 1; 0.9 - 2; 0.9 * -1.1 + 3
    (Momentum(), (1.0, -1.1, 2.01)),
    (Momentum(0.5), (1.0, -1.5, 2.25)),
    (Momentum(0.0), (1.0, -2.0, 3.0)),
    # m: 0.1, -0.11, 0.201 over 1 - 0.9^t: 1, -0.11 / 0.19, 0.201 / 0.271;
    # v: 0.001, 0.004999, 0.013994001 over 1 - 0.999^t: 1, 0.004999 / 0.001999, 0.013994001 / 0.002997001
    (
        Adam(),
        (
            1 / (1 + 1e-8),
            (-0.11 / 0.19) / (math.sqrt(0.004999 / 0.001999) + 1e-8),
            (0.201 / 0.271) / (math.sqrt(0.013994001 / 0.002997001) + 1e-8),
        ),
    ),
    # Without memory: g / (|g| + epsilon).
    (Adam(0.0, 0.0, 1.0), (1 / 2, -2 / 3, 3 / 4)),
    # g + 0.5 velocity, with velocity 1, -1.5, 2.25
    (Momentum(0.5, nesterov=True), (1.5, -2.75, 4.125)),
    # squares: 1, 5, 14
    (Adagrad(0.5), (1 / 1.5, -2 / (math.sqrt(5) + 0.5), 3 / (math.sqrt(14) + 0.5))),
    # v: 0.5, 2.25, 5.625
    (RMSprop(0.5, 0.1), (1 / (math.sqrt(0.5) + 0.1), -2 / 1.6, 3 / (math.sqrt(5.625) + 0.1))),
    # mean: 0.5, -0.75, 1.125; v - mean^2: 0.25, 1.6875, 4.359375
    (
        RMSprop(0.5, 0.1, centered=True),
        (1 / 0.6, -2 / (math.sqrt(1.6875) + 0.1), 3 / (math.sqrt(4.359375) + 0.1)),
    ),
]

ALL: list[Optimizer] = [
    Sgd(),
    Momentum(),
    Momentum(0.3),
    Momentum(0.6, nesterov=True),
    Adam(),
    Adam(0.5, 0.9, 0.1),
    AdamW(),
    Adagrad(),
    RMSprop(),
    RMSprop(0.5, 1e-4, 0.9, centered=True),
]


def zeros(optimizer: Optimizer, like: Array) -> dict[str, Array]:
    return {name: np.zeros_like(like) for name in optimizer.carries}


def walk(optimizer: Optimizer, gradients: list[Array], rate: float = 1.0) -> Iterator[Array]:
    """By how much each step moves the parameters, downwards and over the rate."""
    params = np.zeros_like(gradients[0])
    carried, scratch = zeros(optimizer, params), np.empty_like(params)
    for step, gradient in enumerate(gradients):
        params[:] = 0
        optimizer.update(params, gradient.copy(), carried, rate, step, scratch)
        yield -params / rate


@pytest.mark.parametrize(("optimizer", "directions"), HAND, ids=str)
@pytest.mark.parametrize("rate", [1.0, 0.25])
def test_three_steps_worked_by_hand(optimizer: Optimizer, directions: tuple[float, ...], rate: float) -> None:
    gradients = [np.array([gradient]) for gradient in GRADIENTS]
    assert [float(d[0]) for d in walk(optimizer, gradients, rate)] == pytest.approx(directions, rel=1e-12)


def momentum(gradients: list[float], step: int) -> float:
    """The sum that the recurrence unrolls to."""
    return sum(0.9 ** (step - s) * gradients[s] for s in range(step + 1))


def nesterov(gradients: list[float], step: int) -> float:
    return gradients[step] + 0.9 * momentum(gradients, step)


def adagrad(gradients: list[float], step: int) -> float:
    return gradients[step] / (math.sqrt(sum(g**2 for g in gradients[: step + 1])) + 1e-10)


def recent(values: Sequence[float], step: int) -> float:
    """Their mean, those of long ago counting ever less."""
    return 0.01 * sum(0.99 ** (step - s) * values[s] for s in range(step + 1))


def rmsprop(gradients: list[float], step: int) -> float:
    return gradients[step] / (math.sqrt(recent([g**2 for g in gradients], step)) + 1e-8)


def centered(gradients: list[float], step: int) -> float:
    mean = recent(gradients, step)
    return gradients[step] / (math.sqrt(recent([g**2 for g in gradients], step) - mean**2) + 1e-8)


def adam(gradients: list[float], step: int) -> float:
    t = step + 1
    m = 0.1 * sum(0.9 ** (step - s) * gradients[s] for s in range(t)) / (1 - 0.9**t)
    v = 0.001 * sum(0.999 ** (step - s) * gradients[s] ** 2 for s in range(t)) / (1 - 0.999**t)
    return m / (math.sqrt(v) + 1e-8)


FORMULAS: list[tuple[Optimizer, Callable[[list[float], int], float]]] = [
    (Momentum(), momentum),
    (Momentum(nesterov=True), nesterov),
    (Adam(), adam),
    (AdamW(), adam),
    (Adagrad(), adagrad),
    (RMSprop(), rmsprop),
    (RMSprop(centered=True), centered),
]


@pytest.mark.parametrize(("optimizer", "formula"), FORMULAS, ids=row_name)
@settings(deadline=None, max_examples=30)
@given(gradients=st.lists(st.floats(0.01, 100) | st.floats(-100, -0.01), min_size=1, max_size=30))
def test_any_number_of_steps_by_the_closed_formula(
    optimizer: Optimizer, formula: Callable[[list[float], int], float], gradients: list[float]
) -> None:
    directions = list(walk(optimizer, [np.array([gradient]) for gradient in gradients]))
    expected = [formula(gradients, step) for step in range(len(gradients))]
    assert [float(d[0]) for d in directions] == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_adams_step_does_not_depend_on_the_size_of_gradients(scale: float) -> None:
    gradients = [np.array([gradient]) for gradient in GRADIENTS]
    plain = list(walk(Adam(epsilon=1e-30), gradients))
    scaled = list(walk(Adam(epsilon=1e-30), [scale * gradient for gradient in gradients]))
    np.testing.assert_allclose(plain, scaled, rtol=1e-12)


@pytest.mark.parametrize("optimizer", ALL, ids=str)
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 99), size=st.integers(1, 40), cuts=st.lists(st.integers(0, 40), max_size=5))
def test_slice_by_slice_in_any_order_is_the_whole(optimizer: Optimizer, seed: int, size: int, cuts: list[int]) -> None:
    """In every bit, of the parameters and of what is carried."""
    random = np.random.default_rng(seed)
    whole = random.standard_normal(size).astype(np.float32)
    sliced = whole.copy()
    of_whole, of_sliced = zeros(optimizer, whole), zeros(optimizer, whole)
    bounds = sorted({0, size, *(min(cut, size) for cut in cuts)})
    parts = [slice(a, b) for a, b in pairwise(bounds)]
    for step in range(4):
        gradient = (random.standard_normal(size) * 10.0 ** random.integers(-3, 3)).astype(np.float32)
        optimizer.update(whole, gradient.copy(), of_whole, 0.01, step, np.empty_like(whole))
        for part in random.permutation(len(parts)):
            here = parts[part]
            carried = {name: vector[here] for name, vector in of_sliced.items()}
            scratch = np.full(here.stop - here.start, np.nan, np.float32)
            optimizer.update(sliced[here], gradient[here], carried, 0.01, step, scratch)
    assert sliced.tobytes() == whole.tobytes()
    assert {n: v.tobytes() for n, v in of_sliced.items()} == {n: v.tobytes() for n, v in of_whole.items()}


@pytest.mark.parametrize("optimizer", ALL, ids=str)
def test_without_a_gradient_nothing_moves(optimizer: Optimizer) -> None:
    """As for the weights of a unit that is never active."""
    for direction in walk(optimizer, [np.zeros(3, np.float32)] * 3):
        np.testing.assert_array_equal(direction, 0)


@pytest.mark.parametrize(
    ("cls", "field", "values"),
    [
        (Momentum, "momentum", (-0.1, 1.0, 2.0, math.nan, math.inf)),
        (Adam, "beta1", (-0.1, 1.0, math.nan)),
        (Adam, "beta2", (-0.1, 1.0, math.nan)),
        (Adam, "epsilon", (0.0, -1e-8, 1e-300, 1e300, math.nan, math.inf)),
        (AdamW, "beta2", (-0.1, 1.0, math.nan)),
        (AdamW, "weight_decay", (-0.1, 1e-300, 1e300, math.nan, math.inf)),
        (Adagrad, "epsilon", (0.0, -1e-8, 1e300, math.nan)),
        (RMSprop, "decay", (-0.1, 1.0, math.nan)),
        (RMSprop, "epsilon", (0.0, -1e-8, 1e300, math.nan)),
        (RMSprop, "momentum", (-0.1, 1.0, math.nan)),
    ],
)
def test_values_out_of_range_are_refused(cls: Callable[..., Optimizer], field: str, values: tuple[float, ...]) -> None:
    for value in values:
        with pytest.raises(InvalidValue, match=rf"^{field}: is .*; must be ") as refused:
            cls(**{field: value})
        assert refused.value.field == field


def test_the_table_has_them_all() -> None:
    classes = (Sgd, Momentum, Adam, RMSprop, Adagrad, AdamW)
    assert {cls.__name__.lower(): cls for cls in classes} == dict(OPTIMIZERS)


REFERENCE = np.load(Path(__file__).parents[2] / "references" / "optimizers.npz")
"""What PyTorch made of the same gradients, by the script beside the file. A matrix of 6, then a vector of 2."""

LIKE_PYTORCH: dict[str, tuple[Optimizer, Regularization]] = {
    "sgd": (Sgd(), Regularization()),
    "l2": (Sgd(), Regularization(l2=0.1)),
    "momentum": (Momentum(), Regularization()),
    "nesterov": (Momentum(0.8, nesterov=True), Regularization()),
    "adam": (Adam(), Regularization()),
    "adamw": (AdamW(), Regularization(weight_decay=0.01)),
    "adagrad": (Adagrad(), Regularization()),
    "rmsprop": (RMSprop(), Regularization()),
    "centered": (RMSprop(0.9, centered=True), Regularization()),
    "rmsprop_momentum": (RMSprop(momentum=0.7), Regularization()),
    "clip_norm": (Sgd(), Regularization(clip_norm=1.5)),
    "clip_value": (Sgd(), Regularization(clip_value=0.5)),
}


@pytest.mark.parametrize("name", LIKE_PYTORCH)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-6), (np.float32, 1e-4)])
def test_the_steps_are_those_of_pytorch(name: str, dtype: type, tolerance: float) -> None:
    """Clipping to 1e-6 alone, since PyTorch adds that to the norm."""
    optimizer, regularization = LIKE_PYTORCH[name]
    params = REFERENCE["start"].astype(dtype)
    update = Update(len(params), params.dtype, None, regularization, [slice(0, 6)])
    carried = zeros(optimizer, params)
    for step, (gradient, expected) in enumerate(zip(REFERENCE["gradients"], REFERENCE[f"rule.{name}"], strict=True)):
        sums = Gradient(gradient.astype(dtype) * 3, Sums(1.0, {}, 3, 3.0))
        mean = update.average([Block(0, 1, sums)], 1)
        update.apply(optimizer, params, mean, carried, 0.05, step)
        np.testing.assert_allclose(params, expected, rtol=tolerance, atol=tolerance)


def test_rmsprop_carries_what_it_needs() -> None:
    assert RMSprop().carries == ("v",)
    assert RMSprop(momentum=0.1).carries == ("v", "velocity")
    assert RMSprop(momentum=0.1, centered=True).carries == ("v", "mean", "velocity")


def test_a_constant_gradient_leaves_no_variance_and_no_nan() -> None:
    """Of v - mean^2 rounding could make less than 0, whose root is NaN."""
    for gradient in (1.0, 1e-3, 0.1, 1 / 3):
        directions = list(walk(RMSprop(0.5, 1e-3, centered=True), [np.full(1, gradient, np.float32)] * 200))
        assert np.isfinite(directions).all()
