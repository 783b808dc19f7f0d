"""What happens to a gradient before the optimizer sees it, by formula and however it is cut."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from service.training.optimizers import Adam, Sgd
from service.training.regularization import Regularization
from service.training.update import SHARED_FROM, SLICE, Mean, Update, weights_of
from tests.unit.service.examples import task
from worker.arrays import Array
from worker.blocks import Block
from worker.errors import InvalidValue
from worker.gradient import Gradient, Sums

finite = st.floats(-10, 10)
strengths = st.sampled_from([0.0, 0.01, 0.3])
regularizations = st.builds(
    Regularization,
    st.none() | st.floats(0.1, 20),
    st.none() | st.floats(0.1, 5),
    strengths,
    strengths,
    strengths,
)
RATE = 0.05


def stepped(regularization: Regularization, params: Array, gradient: Array, weights: list[slice]) -> Array:
    """The parameters after a step of gradient descent."""
    params = params.copy()
    update = Update(len(params), params.dtype, None, regularization, weights)
    mean = update.average([Block(0, 1, Gradient(gradient.copy(), Sums(1.0, {}, 1, 1.0)))], 1)
    update.apply(Sgd(), params, mean, {}, RATE, 0)
    return params


@settings(deadline=None, max_examples=50)
@given(regularizations, st.lists(st.tuples(finite, finite), min_size=4, max_size=9))
def test_by_the_formulas(regularization: Regularization, pairs: list[tuple[float, float]]) -> None:
    """The first three parameters are weights."""
    w, g = np.array(pairs).T
    norm = math.sqrt(sum(each**2 for each in g))
    expected = []
    for index, (own, slope) in enumerate(zip(w.tolist(), g.tolist(), strict=True)):
        if regularization.clip_norm is not None:
            slope *= min(1.0, regularization.clip_norm / norm) if norm else 1.0
        if regularization.clip_value is not None:
            slope = min(max(slope, -regularization.clip_value), regularization.clip_value)
        decay = 0.0
        if index < 3:
            slope += regularization.l1 * ((own > 0) - (own < 0)) + regularization.l2 * own
            decay = regularization.weight_decay * own
        expected.append(own - RATE * slope - RATE * decay)
    found = stepped(regularization, w, g, [slice(0, 3)])
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_weights_are_what_has_two_axes() -> None:
    network = task().network
    parts = weights_of(network)
    assert [(part.start, part.stop - part.start) for part in parts] == [(0, 20), (25, 15)]
    assert [slot.size for slot in network.slots] == [20, 5, 15, 3]


EVERYTHING = Regularization(0.5, 0.01, 0.001, 0.02, 0.3)


@pytest.mark.parametrize("parameters", [SLICE + 11, SHARED_FROM + SLICE // 2], ids=["one thread", "two threads"])
@pytest.mark.parametrize("blas_threads", [1, 2])
def test_slices_and_threads_do_not_show(parameters: int, blas_threads: int) -> None:
    """Against the whole vectors at once; and the norm too is the same whoever multiplies."""
    random = np.random.default_rng(3)
    start, gradient = (random.standard_normal(parameters, np.float32) for _ in range(2))
    weights = [slice(0, 70_000), slice(70_001, parameters - 5)]
    weights = [part for part in weights if part.start < part.stop]
    update = Update(parameters, start.dtype, None, EVERYTHING, weights)
    with threadpool_limits(blas_threads):
        mean = update.average([Block(0, 1, Gradient(gradient.copy(), Sums(1.0, {}, 1, 1.0)))], 1)
    with threadpool_limits(1):
        again = update.average([Block(0, 1, Gradient(gradient.copy(), Sums(1.0, {}, 1, 1.0)))], 1)
    assert mean.squared_norm == again.squared_norm
    assert mean.squared_norm == pytest.approx(float(np.square(gradient.astype(np.float64)).sum()), rel=1e-5)
    params, carried = start.copy(), {name: np.zeros_like(start) for name in Adam.carries}
    update.apply(Adam(), params, mean, carried, RATE, 0)
    whole, scratch, of_whole = start.copy(), np.empty_like(start), {name: np.zeros_like(start) for name in Adam.carries}
    scale = EVERYTHING.scale(math.sqrt(again.squared_norm))
    EVERYTHING.prepare(whole, gradient, weights, scale, RATE, scratch)
    Adam().update(whole, gradient, of_whole, RATE, 0, scratch)
    assert params.tobytes() == whole.tobytes()


def test_what_is_kept_is_not_touched() -> None:
    params, vector = np.full(6, 2.0), np.full(6, 8.0)
    update = Update(6, params.dtype, 4, EVERYTHING, [slice(0, 4)])
    mean = update.average([Block(0, 1, Gradient(vector, Sums(1.0, {}, 2, 2.0)))], 1)
    assert mean.squared_norm == 4 * 4.0**2
    update.apply(Sgd(), params, mean, {}, RATE, 0)
    np.testing.assert_array_equal(params[4:], 6.0)


@pytest.mark.parametrize(("dtype", "size"), [(np.float32, 1e25), (np.float64, 1e200)])
def test_a_norm_whose_square_is_no_number_is_clipped_all_the_same(dtype: type, size: float) -> None:
    gradient = np.array([3, -4], dtype) * dtype(size)
    found = stepped(Regularization(clip_norm=5.0), np.zeros(2, dtype), gradient, [])
    np.testing.assert_allclose(found, [-RATE * 3, RATE * 4], rtol=1e-6)


def test_a_short_gradient_is_left_alone() -> None:
    gradient = np.array([0.3, 0.4])
    for limit in (0.5, 1.0, 1e38):
        assert Regularization(clip_norm=limit).scale(float(np.linalg.norm(gradient))) == 1.0
    assert Regularization(clip_norm=0.25).scale(0.5) == 0.5


def test_without_any_the_bits_are_those_of_the_rule() -> None:
    random = np.random.default_rng(1)
    params, gradient = (random.standard_normal(50, np.float32) for _ in range(2))
    plain = params - gradient * np.float32(RATE)
    assert stepped(Regularization(), params, gradient, [slice(0, 50)]).tobytes() == plain.tobytes()
    assert stepped(Regularization(clip_norm=1e9), params, gradient, [slice(0, 50)]).tobytes() == plain.tobytes()


@pytest.mark.parametrize("field", ["clip_norm", "clip_value", "l1", "l2", "weight_decay"])
@pytest.mark.parametrize("value", [-1.0, 1e-300, 1e300, math.nan, math.inf])
def test_values_out_of_range_are_refused(field: str, value: float) -> None:
    changes: dict[str, Any] = {field: value}
    with pytest.raises(InvalidValue, match=rf"^{field}: is .*; must be ") as refused:
        replace(Regularization(), **changes)
    assert refused.value.field == field


def test_a_mean_that_is_not_finite_is_no_norm() -> None:
    update = Update(2, np.dtype(np.float32), None, Regularization(clip_norm=1.0))
    mean = update.average([Block(0, 1, Gradient(np.array([np.nan, np.inf], np.float32), Sums(1.0, {}, 1, 1.0)))], 1)
    assert isinstance(mean, Mean)
    assert math.isnan(mean.squared_norm)
