"""What every layer promises. A new layer costs one row of CASES."""

import re
from dataclasses import dataclass, field

import numpy as np
import pytest

from tests.unit.worker import cases_convolution, cases_norms
from tests.unit.worker.cases_recurrent import RECURRENT
from tests.unit.worker.central_differences import assert_is_gradient
from tests.unit.worker.whole_tables import filled, unfilled
from worker.arrays import Array, Shape
from worker.errors import InvalidValue
from worker.layers import (
    LAYERS,
    Backward,
    Concatenate,
    Context,
    Dense,
    Draw,
    Dropout,
    Embedding,
    Layer,
    ReLU,
    Residual,
    Sigmoid,
    Stack,
    Tanh,
)

ROWS = 5


@dataclass(frozen=True)
class Case:
    name: str
    layer: Layer
    input_shape: Shape
    integers: int = 0
    """For layers that look something up: inputs are integers below this, and have no gradient."""


def training(*, input_gradient: bool = True) -> Context:
    """A step in which every layer draws the same numbers each time."""
    return Context(input_gradient, Draw(seed=5, step=3, shard=1))


CASES = [
    Case("dense", Dense(3), (4,)),
    Case("dense, narrowing to one", Dense(1), (7,)),
    Case("dense, widening from one", Dense(6), (1,)),
    Case("dense on sequences", Dense(3), (4, 2)),
    Case("dense on images", Dense(2), (2, 3, 4)),
    Case("relu", ReLU(), (4,)),
    Case("relu on an image", ReLU(), (3, 4, 2)),
    Case("tanh", Tanh(), (4,)),
    Case("tanh on an image", Tanh(), (3, 4, 2)),
    Case("sigmoid", Sigmoid(), (4,)),
    Case("sigmoid on an image", Sigmoid(), (3, 4, 2)),
    Case("dropout", Dropout(0.3), (4,)),
    Case("dropout on an image", Dropout(), (3, 4, 2)),
    Case("residual", Residual((Dense(4), Tanh(), Dropout(0.2), Dense(4))), (4,)),
    Case("residual with a projection", Residual((Dense(3), Tanh()), (Dense(3),)), (4,)),
    Case("concatenate", Concatenate((Stack((Dense(3), Tanh())), Stack(), Stack((Dropout(),)))), (4,)),
    Case("stacks in stacks", Residual((Concatenate((Stack((Residual((Tanh(),)),)), Stack())), Dense(4))), (4,)),
    *(Case(*each) for each in cases_norms.CASES),
    *(Case(*case) for case in RECURRENT),
    *(Case(*each) for each in cases_convolution.CASES),
    Case("embedding", Embedding(6, 3), (4,), integers=6),
    Case("embedding of one number", Embedding(6, 3), (), integers=6),
    Case("embedding where all is the same", Embedding(1, 2), (7,), integers=1),
    Case("embedding of a size of one", Embedding(9, 1), (3,), integers=9),
    Case("two embeddings added", Residual((Embedding(6, 3), Tanh()), (Embedding(5, 3),)), (4,), integers=5),
    Case("two embeddings", Concatenate((Stack((Embedding(6, 3),)), Stack((Embedding(5, 2),)))), (), integers=5),
]

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@dataclass(frozen=True)
class Point:
    """Somewhere to look at a layer: parameters, an input, and the gradient that comes from above."""

    params: dict[str, Array]
    x: Array
    dy: Array
    tables: frozenset[str] = field(default_factory=frozenset)


def point(case: Case, rows: int = ROWS, dtype: type = np.float64) -> Point:
    """Random, and no input nearer than 0.1 to zero, where ReLU has its kink."""
    rng = np.random.default_rng(1)
    parameters = case.layer.parameters(case.input_shape)
    params: dict[str, Array] = {
        key: rng.standard_normal(parameter.shape).astype(dtype) for key, parameter in parameters.items()
    }
    shape = (rows, *case.input_shape)
    x = rng.uniform(0.1, 2, shape) * rng.choice([-1, 1], shape)
    if case.integers:
        x = rng.integers(case.integers, size=shape).astype(float)
    dy = rng.standard_normal((rows, *case.layer.output_shape(case.input_shape)))
    tables = frozenset(key for key, parameter in parameters.items() if parameter.is_table)
    return Point(params, x.astype(dtype), dy.astype(dtype), tables)


def backward(layer: Layer, at: Point) -> tuple[Array, dict[str, Array]]:
    """(dx, gradients by name)."""
    _, back = layer.forward(at.params, at.x, training())
    return gradients(back, at)


def gradients(back: Backward, at: Point) -> tuple[Array, dict[str, Array]]:
    """(dx, gradients by name) of one backward."""
    grads = unfilled(at.params, at.tables)
    dx = back(at.dy, grads)
    return dx, filled(grads, at.params)


def loss(layer: Layer, params: dict[str, Array], x: Array, dy: Array) -> float:
    """Of which dy is the gradient with respect to y; and what the layer adds to it."""
    context = training()
    y, _ = layer.forward(params, x, context)
    return float(np.sum(dy * y)) + sum(context.penalties)


def test_every_layer_is_in_the_table() -> None:
    assert {type(case.layer) for case in CASES} == set(LAYERS.values())


@pytest.mark.parametrize("case", [case for case in CASES if not case.integers], ids=lambda case: case.name)
def test_input_gradient(case: Case) -> None:
    at = point(case)
    dx, _ = backward(case.layer, at)
    assert_is_gradient(dx, lambda x: loss(case.layer, at.params, x, at.dy), at.x)


@every_case
def test_parameter_gradients(case: Case) -> None:
    at = point(case)
    _, grads = backward(case.layer, at)
    for key, parameter in case.layer.parameters(case.input_shape).items():
        if parameter.kept:
            continue

        def of_one(value: Array, key: str = key) -> float:
            return loss(case.layer, {**at.params, key: value}, at.x, at.dy)

        assert_is_gradient(grads[key], of_one, at.params[key])


@every_case
@pytest.mark.parametrize("rows", [0, 1, ROWS])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shapes_and_precision_are_kept(case: Case, rows: int, dtype: type) -> None:
    at = point(case, rows, dtype)
    y, _ = case.layer.forward(at.params, at.x, training())
    dx, _ = backward(case.layer, at)
    assert y.shape == (rows, *case.layer.output_shape(case.input_shape))
    assert dx.shape == at.x.shape
    assert y.dtype == dx.dtype == dtype


@every_case
def test_no_rows_give_a_gradient_of_zero(case: Case) -> None:
    _, grads = backward(case.layer, point(case, rows=0))
    assert all((value == 0).all() for value in grads.values())


@every_case
def test_nothing_it_is_given_is_changed(case: Case) -> None:
    at, same = point(case), point(case)
    backward(case.layer, at)
    np.testing.assert_array_equal(at.x, same.x)
    np.testing.assert_array_equal(at.dy, same.dy)
    for key, value in at.params.items():
        np.testing.assert_array_equal(value, same.params[key])


@every_case
def test_backwards_of_two_forwards_do_not_meet(case: Case) -> None:
    """Nothing is stored on the layer: going forward again in between changes nothing, nor does asking twice."""
    at = point(case)
    expected_dx, expected = backward(case.layer, at)
    _, first = case.layer.forward(at.params, at.x, training())
    case.layer.forward(at.params, at.x[::-1], training())
    for _ in range(2):
        dx, grads = gradients(first, at)
        np.testing.assert_array_equal(dx, expected_dx)
        for key, value in expected.items():
            np.testing.assert_array_equal(grads[key], value)


@every_case
def test_parameter_gradients_do_not_need_the_input_gradient(case: Case) -> None:
    at = point(case)
    _, expected = backward(case.layer, at)
    _, without = case.layer.forward(at.params, at.x, training(input_gradient=False))
    _, grads = gradients(without, at)
    for key, value in expected.items():
        np.testing.assert_array_equal(grads[key], value)


WITHOUT_PARAMETERS = [case for case in CASES if not case.layer.parameters(case.input_shape)]


@pytest.mark.parametrize("case", WITHOUT_PARAMETERS, ids=lambda case: case.name)
def test_not_a_number_is_not_hidden(case: Case) -> None:
    y, _ = case.layer.forward({}, np.full((1, *case.input_shape), np.nan), training())
    assert np.isnan(y).all()


@pytest.mark.parametrize(
    ("layer", "x", "y", "slope"),
    [
        (ReLU(), [-1e4, -2.0, 0.0, 3.0, 1e4], [0, 0, 0, 3, 1e4], [0, 0, 0, 1, 1]),
        (Tanh(), [-1e4, 0.0, 1e4], [-1, 0, 1], [0, 1, 0]),
        (Sigmoid(), [-1e4, 0.0, 1e4], [0, 0.5, 1], [0, 0.25, 0]),
    ],
    ids=["relu", "tanh", "sigmoid"],
)
def test_activations_at_known_points(layer: Layer, x: list[float], y: list[float], slope: list[float]) -> None:
    """Far out too, where a formula with exp overflows; and ReLU at zero, where the slope is taken as 0."""
    outputs, back = layer.forward({}, np.array([x]), training())
    np.testing.assert_allclose(outputs, [y], atol=1e-15)
    np.testing.assert_allclose(back(np.ones_like(outputs), {}), [slope], atol=1e-15)


def test_sigmoid_is_the_logistic_function() -> None:
    x = np.linspace(-20, 20, 81)[np.newaxis]
    y, _ = Sigmoid().forward({}, x, training())
    np.testing.assert_allclose(y, 1 / (1 + np.exp(-x)), atol=1e-15)


def test_dense_by_hand() -> None:
    params = {"weight": np.array([[1.0, 2.0], [3.0, 4.0]]), "bias": np.array([10.0, 20.0])}
    y, back = Dense(2).forward(params, np.array([[1.0, -1.0]]), training())
    np.testing.assert_array_equal(y, [[8, 18]])
    grads = unfilled(params)
    np.testing.assert_array_equal(back(np.array([[1.0, 2.0]]), grads), [[5, 11]])
    np.testing.assert_array_equal(grads["weight"], [[1, 2], [-1, -2]])
    np.testing.assert_array_equal(grads["bias"], [1, 2])


@pytest.mark.parametrize("units", [0, -1, 1_000_001])
def test_dense_refuses_units_out_of_range(units: int) -> None:
    with pytest.raises(InvalidValue, match=f"units: is {units}; must be 1 to 1,000,000") as refused:
        Dense(units)
    assert refused.value.field == "units"


@pytest.mark.parametrize(
    ("input_shape", "mentions"),
    [
        ((), ["()", "(1,)"]),
        ((0,), ["at least one feature", "(0,)"]),
        ((3, 0), ["at least one feature", "(3, 0)"]),
        ((0, 3), ["(0, 3)"]),
    ],
    ids=str,
)
def test_dense_says_what_would_fit(input_shape: Shape, mentions: list[str]) -> None:
    for text in mentions:
        with pytest.raises(ValueError, match=re.escape(text)):
            Dense(3).output_shape(input_shape)
