"""Optimizers against their papers."""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.training.optimizers import OPTIMIZERS, Adam, Momentum, Optimizer, Sgd
from worker.arrays import Array
from worker.errors import InvalidValue

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
]

ALL = [Sgd(), Momentum(), Momentum(0.3), Adam(), Adam(0.5, 0.9, 0.1)]


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


def adam(gradients: list[float], step: int) -> float:
    t = step + 1
    m = 0.1 * sum(0.9 ** (step - s) * gradients[s] for s in range(t)) / (1 - 0.9**t)
    v = 0.001 * sum(0.999 ** (step - s) * gradients[s] ** 2 for s in range(t)) / (1 - 0.999**t)
    return m / (math.sqrt(v) + 1e-8)


@pytest.mark.parametrize(("optimizer", "formula"), [(Momentum(), momentum), (Adam(), adam)], ids=str)
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
    ],
)
def test_values_out_of_range_are_refused(cls: Callable[..., Optimizer], field: str, values: tuple[float, ...]) -> None:
    for value in values:
        with pytest.raises(InvalidValue, match=rf"^{field}: is .*; must be ") as refused:
            cls(**{field: value})
        assert refused.value.field == field


def test_the_table_has_them_all() -> None:
    assert {cls.__name__.lower(): cls for cls in (Sgd, Momentum, Adam)} == dict(OPTIMIZERS)
