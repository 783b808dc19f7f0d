"""Activations against their definitions, far out and in single precision too."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from worker.arrays import Array
from worker.errors import InvalidValue
from worker.layers import ELU, GELU, Context, Layer, LeakyReLU, SiLU, Softmax, Softplus
from worker.layers.gelu import normal_distribution


def normal(x: float) -> float:
    """The share of the standard normal distribution below x."""
    return math.erfc(-x / math.sqrt(2)) / 2


def tanh_form(x: float) -> float:
    return x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


DEFINITIONS: list[tuple[Layer, Callable[[float], float]]] = [
    (LeakyReLU(), lambda x: x if x > 0 else 0.01 * x),
    (LeakyReLU(0.2), lambda x: x if x > 0 else 0.2 * x),
    (ELU(), lambda x: x if x > 0 else math.expm1(x)),
    (ELU(2.5), lambda x: x if x > 0 else 2.5 * math.expm1(x)),
    (GELU(), lambda x: x * normal(x)),
    (GELU(approximate=True), tanh_form),
    (SiLU(), lambda x: x / (1 + math.exp(-x))),
    (Softplus(), lambda x: math.log1p(math.exp(x))),
]

every = pytest.mark.parametrize(("layer", "definition"), DEFINITIONS, ids=lambda value: str(value)[:20])


def outputs(layer: Layer, x: Array) -> Array:
    y, _ = layer.forward({}, x[np.newaxis], Context())
    first: Array = y[0]
    return first


@every
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-14), (np.float32, 5e-7)])
def test_it_is_the_function_of_its_name(
    layer: Layer, definition: Callable[[float], float], dtype: type, tolerance: float
) -> None:
    x: Array = np.linspace(-12, 12, 4001).astype(dtype)
    expected = np.array([definition(each) for each in x.tolist()])
    np.testing.assert_allclose(outputs(layer, x), expected, rtol=tolerance, atol=tolerance)


@every
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_out_nothing_overflows(layer: Layer, definition: Callable[[float], float], dtype: type) -> None:  # noqa: ARG001
    x: Array = np.array([[-1e4, -100, -0.0, 0.0, 100, 1e4]], dtype)
    y, back = layer.forward({}, x, Context())
    dx = back(np.ones_like(x), {})
    assert np.isfinite(y).all()
    assert np.isfinite(dx).all()
    np.testing.assert_array_equal(y[0, 4:], x[0, 4:])
    np.testing.assert_array_equal(dx[0, 4:], 1)
    assert y[0, 2] == y[0, 3]


def test_the_normal_distribution_in_single_precision_is_as_near_as_is_said() -> None:
    x = np.linspace(-8, 8, 20_001).astype(np.float32)
    below, density = normal_distribution(x)
    np.testing.assert_allclose(below, [normal(each) for each in x.tolist()], rtol=0, atol=3e-7)
    np.testing.assert_allclose(density, np.exp(-(x.astype(float) ** 2) / 2) / np.sqrt(2 * np.pi), rtol=0, atol=2e-7)
    assert below.dtype == density.dtype == np.float32


def test_the_approximate_gelu_is_near_the_exact_one() -> None:
    x = np.linspace(-8, 8, 2001)
    error = np.abs(outputs(GELU(approximate=True), x) - outputs(GELU(), x))
    assert 1e-5 < error.max() < 5e-4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_makes_probabilities_however_large_its_inputs(dtype: type) -> None:
    x: Array = np.array([[[0, 1, 2], [1e4, 1e4, -1e4]], [[-1e4, -1e4, -1e4], [5, 5, 5 + math.log(2)]]], dtype)
    p, _ = Softmax().forward({}, x, Context())
    e = math.e
    odds: Array = np.array([[[1, e, e**2], [1, 1, 0]], [[1, 1, 1], [1, 1, 2]]])
    np.testing.assert_allclose(p, odds / np.sum(odds, axis=-1, keepdims=True), rtol=1e-6)


def test_softmax_says_what_would_fit() -> None:
    with pytest.raises(ValueError, match=r"rows of shape \(\) reach it; store them as \(n,\)"):
        Softmax().output_shape(())


@pytest.mark.parametrize(
    ("make", "field", "told"),
    [
        (lambda: LeakyReLU(1.0), "slope", "is 1; must be 0 up to, but not including, 1"),
        (lambda: LeakyReLU(-0.1), "slope", "is -0.1; must be"),
        (lambda: LeakyReLU(math.nan), "slope", "is nan; must be"),
        (lambda: ELU(0.0), "alpha", "is 0; must be above 0, and at most 100"),
        (lambda: ELU(101.0), "alpha", "is 101; must be"),
        (lambda: ELU(math.nan), "alpha", "is nan; must be"),
    ],
)
def test_what_is_out_of_range_is_refused(make: Callable[[], Layer], field: str, told: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        make()
    assert refused.value.field == field
    assert refused.value.problem.startswith(told)
