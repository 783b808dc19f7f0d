"""Optimizers against their papers."""

import math
from collections.abc import Callable, Iterator

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


def walk(optimizer: Optimizer, gradients: list[Array]) -> Iterator[Array]:
    state = optimizer.init(np.zeros_like(gradients[0]))
    for step, gradient in enumerate(gradients):
        direction, state = optimizer.direction(gradient, state, step)
        yield direction


@pytest.mark.parametrize(("optimizer", "directions"), HAND, ids=str)
def test_three_steps_worked_by_hand(optimizer: Optimizer, directions: tuple[float, ...]) -> None:
    gradients = [np.array([gradient]) for gradient in GRADIENTS]
    assert [float(d[0]) for d in walk(optimizer, gradients)] == pytest.approx(directions, rel=1e-12)


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
def test_inputs_are_not_written_and_types_are_kept(optimizer: Optimizer) -> None:
    params = np.linspace(-1, 1, 5, dtype=np.float32)
    gradient = np.linspace(2, -3, 5, dtype=np.float32)
    state = optimizer.init(params)
    for step in range(3):
        frozen = {name: array.copy() for name, array in state.items()}
        for array in (params, gradient, *state.values()):
            array.flags.writeable = False
        direction, after = optimizer.direction(gradient, state, step)
        again, _ = optimizer.direction(gradient, state, step)
        assert direction.tobytes() == again.tobytes()
        for name, array in state.items():
            np.testing.assert_array_equal(array, frozen[name])
            assert after[name].dtype == np.float32
        assert (direction.dtype.name, direction.shape, after.keys()) == ("float32", (5,), state.keys())
        state = after


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
