"""Normalisation against its formulas, and the statistics that batch normalisation keeps."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from tests.unit.rows import row_name
from worker.arrays import Array, Shape
from worker.errors import InvalidValue
from worker.gradient import Batch, gradient, tree_sum
from worker.layers import BatchNorm, Context, Dense, Draw, GroupNorm, Layer, LayerNorm, Tanh
from worker.losses import MeanSquaredError
from worker.network import Network

RNG = np.random.default_rng(7)
TRAINING = Draw(seed=1, step=2, shard=3)


def params_of(layer: Layer, shape: Shape, dtype: type = np.float64) -> dict[str, Array]:
    return {key: RNG.uniform(0.5, 2, of.shape).astype(dtype) for key, of in layer.parameters(shape).items()}


def normal(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    n: Array = (x - x.mean(axis=axes, keepdims=True)) / np.sqrt(x.var(axis=axes, keepdims=True) + epsilon)
    return n


def grouped(x: Array, groups: int, epsilon: float) -> Array:
    """Group by group."""
    parts = np.split(x, groups, axis=-1)
    return np.concatenate([normal(part, tuple(range(1, x.ndim)), epsilon) for part in parts], axis=-1)


@pytest.mark.parametrize("shape", [(6,), (5, 6), (3, 4, 6)])
@pytest.mark.parametrize(
    ("layer", "formula"),
    [
        (BatchNorm(epsilon=0.01), lambda x: normal(x, tuple(range(x.ndim - 1)), 0.01)),
        (LayerNorm(0.01), lambda x: normal(x, (-1,), 0.01)),
        (GroupNorm(1, 0.01), lambda x: grouped(x, 1, 0.01)),
        (GroupNorm(3, 0.01), lambda x: grouped(x, 3, 0.01)),
        (GroupNorm(6, 0.01), lambda x: grouped(x, 6, 0.01)),
    ],
    ids=row_name,
)
def test_it_is_the_formula(layer: Layer, formula: Callable[[Array], Array], shape: Shape) -> None:
    x = RNG.standard_normal((4, *shape)) * 3 + 5
    params = params_of(layer, shape)
    y, _ = layer.forward(params, x, Context(draw=TRAINING))
    np.testing.assert_allclose(y, params["scale"] * formula(x) + params["shift"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("layer", [LayerNorm(), GroupNorm(2)], ids=str)
def test_without_statistics_predicting_is_the_same(layer: Layer) -> None:
    x = RNG.standard_normal((4, 3, 6))
    params = params_of(layer, (3, 6))
    predicted, trained = (layer.forward(params, x, Context(draw=draw))[0] for draw in (None, TRAINING))
    np.testing.assert_array_equal(predicted, trained)


def test_batch_norm_predicts_with_what_is_kept() -> None:
    layer = BatchNorm(epsilon=0.01)
    params = params_of(layer, (5, 6))
    x = RNG.standard_normal((4, 5, 6))
    y, back = layer.forward(params, x, Context())
    n = (x - params["mean"]) / np.sqrt(params["variance"] + 0.01)
    np.testing.assert_allclose(y, params["scale"] * n + params["shift"], rtol=1e-12)
    grads = {key: np.full_like(value, np.nan) for key, value in params.items()}
    dx = back(np.ones_like(x), grads)
    np.testing.assert_allclose(dx, np.broadcast_to(params["scale"] / np.sqrt(params["variance"] + 0.01), x.shape))
    assert (grads["mean"] == 0).all()
    assert (grads["variance"] == 0).all()
    np.testing.assert_allclose(grads["scale"], n.sum(axis=(0, 1)))
    np.testing.assert_allclose(grads["shift"], 20)


@pytest.mark.parametrize("layer", [BatchNorm(), LayerNorm(), GroupNorm(2)], ids=str)
@pytest.mark.parametrize("x", [np.full((1, 4), 1e4), np.full((6, 4), -3e3), np.zeros((1, 4)), np.zeros((0, 4))])
def test_what_does_not_vary_is_finite(layer: Layer, x: Array) -> None:
    """Also one row, or none, which are all that a shard may have."""
    x = x.astype(np.float32)
    params = params_of(layer, (4,), np.float32)
    grads = {key: np.full_like(value, np.nan) for key, value in params.items()}
    y, back = layer.forward(params, x, Context(draw=TRAINING))
    dx = back(np.ones_like(y), grads)
    for values in (y, dx, *grads.values()):
        assert np.isfinite(values).all()
    np.testing.assert_allclose(y, np.broadcast_to(params["shift"], y.shape), rtol=1e-5)


def test_changes_of_what_is_kept_are_those_of_algorithm_2() -> None:
    """Times the rows, with the variance without bias over all places."""
    layer = BatchNorm(momentum=0.8)
    params = params_of(layer, (3, 4))
    x = RNG.standard_normal((5, 3, 4)) * 2 + 1
    _, back = layer.forward(params, x, Context(draw=TRAINING))
    grads = {key: np.full_like(value, np.nan) for key, value in params.items()}
    back(np.ones_like(x), grads)
    np.testing.assert_allclose(grads["mean"], 5 * 0.2 * (x.mean(axis=(0, 1)) - params["mean"]))
    np.testing.assert_allclose(grads["variance"], 5 * 0.2 * (x.var(axis=(0, 1), ddof=1) - params["variance"]))


def test_a_single_number_says_nothing_of_a_variance() -> None:
    layer = BatchNorm(momentum=0.8)
    params = params_of(layer, (4,))
    x = RNG.standard_normal((1, 4))
    _, back = layer.forward(params, x, Context(draw=TRAINING))
    grads = {key: np.full_like(value, np.nan) for key, value in params.items()}
    back(np.ones_like(x), grads)
    np.testing.assert_allclose(grads["mean"], 0.2 * (x[0] - params["mean"]))
    np.testing.assert_array_equal(grads["variance"], 0)


@pytest.mark.parametrize("sizes", [(8, 8), (3, 5, 2, 6), (16,), (1, 15), (0, 7, 9)], ids=str)
def test_statistics_are_folded_by_their_rows(sizes: tuple[int, ...]) -> None:
    """Step after step against the formula, with shards of any sizes, deep in a network."""
    network = Network((Dense(5), BatchNorm(momentum=0.7), Tanh(), Dense(2)), (3,))
    params = network.initial(seed=1, dtype=np.float64)
    learned = params[: network.learned].copy()
    views = network.views(params)
    mean, variance = np.zeros(5), np.ones(5)
    for step in range(4):
        x, y = RNG.standard_normal((16, 3)), RNG.standard_normal((16, 2))
        cuts = np.cumsum(sizes)[:-1]
        shards = [Batch(*pair) for pair in zip(np.split(x, cuts), np.split(y, cuts), strict=True)]
        total = tree_sum(
            [
                gradient(network, MeanSquaredError(), params, batch, Draw(1, step, shard))
                for shard, batch in enumerate(shards)
            ]
        )
        hidden = [batch.inputs @ views[0]["weight"] + views[0]["bias"] for batch in shards]
        seen = [(len(h), h.mean(axis=0), h.var(axis=0, ddof=1) if len(h) > 1 else variance) for h in hidden if len(h)]
        mean = 0.7 * mean + 0.3 * sum(count * of for count, of, _ in seen) / 16
        variance = 0.7 * variance + 0.3 * sum(count * of for count, _, of in seen) / 16
        params[network.learned :] += total.vector[network.learned :] / total.sums.count
        np.testing.assert_allclose(views[1]["mean"], mean, rtol=1e-12)
        np.testing.assert_allclose(views[1]["variance"], variance, rtol=1e-12)
    np.testing.assert_array_equal(params[: network.learned], learned)


@pytest.mark.parametrize(
    ("layer", "shape", "mentions"),
    [
        (BatchNorm(), (), r"batch_norm takes rows of shape \(\.\.\., features\).*rows of shape \(\) reach"),
        (LayerNorm(), (3, 0), r"layer_norm takes .* at least one feature, but rows of shape \(3, 0\) reach it"),
        (GroupNorm(1), (), "group_norm takes rows"),
        (
            GroupNorm(4),
            (3, 6),
            r"groups: is 4; must divide the 6 channels of the rows of shape \(3, 6\)",
        ),
    ],
    ids=str,
)
def test_it_says_what_would_fit(layer: Layer, shape: Shape, mentions: str) -> None:
    with pytest.raises(ValueError, match=mentions):
        layer.output_shape(shape)


@pytest.mark.parametrize(
    ("make", "field", "told"),
    [
        (lambda: BatchNorm(momentum=1.0), "momentum", "is 1; must be 0 up to, but not including, 1"),
        (lambda: BatchNorm(momentum=math.nan), "momentum", "is nan; must"),
        (lambda: BatchNorm(epsilon=0.0), "epsilon", "is 0; must be 1e-12 to 1"),
        (lambda: LayerNorm(2.0), "epsilon", "is 2; must be 1e-12 to 1"),
        (lambda: GroupNorm(0), "groups", "is 0; must be 1 to 1,000,000"),
        (lambda: GroupNorm(2, math.nan), "epsilon", "is nan; must"),
    ],
)
def test_what_is_out_of_range_is_refused(make: Callable[[], Layer], field: str, told: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        make()
    assert refused.value.field == field
    assert refused.value.problem.startswith(told)
