"""Noise, and codes that are drawn: what they are while training, and while predicting."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

from tests.unit.worker.central_differences import assert_is_gradient
from worker.arrays import Array, Shape
from worker.errors import InvalidValue
from worker.gradient import Batch, evaluate, gradient
from worker.layers import Context, Dense, Draw, GaussianLatent, GaussianNoise, Layer, Tanh
from worker.losses import MeanSquaredError
from worker.network import Network

DRAW = Draw(seed=1, step=2, shard=3)
RNG = np.random.default_rng(3)


def test_noise_is_normal_with_its_deviation() -> None:
    x = np.full((100, 1000), 3.0)
    y, _ = GaussianNoise(0.5).forward({}, x, Context(draw=DRAW))
    noise = (y - x) / 0.5
    count = noise.size
    # Four standard errors of each.
    assert abs(noise.mean()) < 4 / math.sqrt(count)
    assert abs(noise.var() - 1) < 4 * math.sqrt(2 / count)
    assert abs((np.abs(noise) < 1).mean() - 0.6827) < 4 * math.sqrt(0.6827 * 0.3173 / count)


@pytest.mark.parametrize("layer", [GaussianNoise(), GaussianLatent()], ids=str)
def test_each_use_draws_its_own_and_always_the_same(layer: Layer) -> None:
    x = RNG.standard_normal((2, 8))
    contexts = [(DRAW, (0,)), (DRAW, (1,)), (Draw(2, 2, 3), (0,)), (Draw(1, 3, 3), (0,)), (Draw(1, 2, 4), (0,))]
    first, second = (
        [layer.forward({}, x, Context(draw=draw, path=path))[0] for draw, path in contexts] for _ in range(2)
    )
    for one, again in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, again)
    assert all((one != other).any() for one, other in itertools.combinations(first, 2))


def test_in_prediction_noise_is_absent_and_a_code_is_its_mean() -> None:
    x = RNG.standard_normal((2, 8))
    np.testing.assert_array_equal(GaussianNoise(3.0).forward({}, x, Context())[0], x)
    np.testing.assert_array_equal(GaussianLatent().forward({}, x, Context())[0], x[:, :4])


def test_codes_are_drawn_around_their_means() -> None:
    m, v = 3.0, math.log(0.25)
    x = np.broadcast_to(np.repeat([m, v], 1000), (100, 2000))
    y, _ = GaussianLatent().forward({}, x, Context(draw=DRAW))
    assert y.shape == (100, 1000)
    assert y.mean() == pytest.approx(m, abs=4 * 0.5 / math.sqrt(y.size))
    assert y.var() == pytest.approx(0.25, abs=4 * 0.25 * math.sqrt(2 / y.size))


@pytest.mark.parametrize("draw", [DRAW, None], ids=["training", "predicting"])
def test_the_divergence_is_that_of_two_normal_distributions(draw: Draw | None) -> None:
    """Against the integral of q log(q / p), q the code's density and p the standard normal one."""
    m, v = 0.7, -0.4
    z = np.linspace(-12, 12, 100_001)
    log_q = -((z - m) ** 2) / math.exp(v) / 2 - v / 2
    divergence = float(np.trapezoid(np.exp(log_q) / math.sqrt(2 * math.pi) * (log_q + z**2 / 2), z))
    context = Context(draw=draw)
    GaussianLatent(0.3).forward({}, np.array([[m, v], [m, v]]), context)
    assert context.penalties == [pytest.approx(2 * 0.3 * divergence, rel=1e-9)]


@pytest.mark.parametrize("draw", [DRAW, None], ids=["training", "predicting"])
def test_a_variational_autoencoders_gradient(draw: Draw | None) -> None:
    """Of reconstruction and divergence together, with the draw held fixed."""
    network = Network((GaussianNoise(0.1), Dense(6), Tanh(), Dense(4), GaussianLatent(0.5), Dense(6)), (6,))
    x = RNG.standard_normal((5, 6))
    params = RNG.standard_normal(network.size)

    def loss(params: Array) -> float:
        return gradient(network, MeanSquaredError(), params, Batch(x, x), draw).sums.loss

    assert_is_gradient(gradient(network, MeanSquaredError(), params, Batch(x, x), draw).vector, loss, params)
    if draw is None:
        assert evaluate(network, MeanSquaredError(), params, Batch(x, x)).loss == loss(params)


def test_rows_count_in_the_divergence_as_their_weights_say() -> None:
    """Weight 0 as if it weren't there, 3 as if there were three."""
    network = Network((Dense(4), Tanh(), Dense(4), GaussianLatent(0.5), Dense(3)), (3,))
    params = RNG.standard_normal(network.size)
    x = RNG.standard_normal((3, 3))
    weighted = gradient(network, MeanSquaredError(), params, Batch(x, x, np.array([1.0, 0.0, 3.0])))
    repeated = x[[0, 2, 2, 2]]
    expected = gradient(network, MeanSquaredError(), params, Batch(repeated, repeated))
    assert weighted.sums.loss == pytest.approx(expected.sums.loss)
    np.testing.assert_allclose(weighted.vector, expected.vector, rtol=1e-9, atol=1e-12)


def test_log_variances_out_of_range_are_held_there() -> None:
    layer, context = GaussianLatent(), Context(draw=DRAW)
    x = np.array([[0.0, 0.0, 1e4, -1e4]], np.float32)
    y, back = layer.forward({}, x, context)
    dx = back(np.ones_like(y), {})
    assert np.isfinite(y).all()
    assert context.penalties == [pytest.approx((math.exp(10) - 11 + math.exp(-20) + 19) / 2)]
    np.testing.assert_array_equal(dx, [[1, 1, 0, 0]])


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 5)], ids=str)
def test_a_latent_code_says_what_would_fit(shape: Shape) -> None:
    with pytest.raises(ValueError, match=r"takes rows of shape \(\.\.\., 2 n\).* reach it; let the layer before"):
        GaussianLatent().output_shape(shape)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: GaussianNoise(-1.0), "stddev"),
        (lambda: GaussianNoise(math.inf), "stddev"),
        (lambda: GaussianNoise(math.nan), "stddev"),
        (lambda: GaussianLatent(-1.0), "kl_weight"),
        (lambda: GaussianLatent(math.nan), "kl_weight"),
    ],
)
def test_what_is_out_of_range_is_refused(make: Callable[[], Layer], field: str) -> None:
    with pytest.raises(InvalidValue, match="must be 0 to 1,000,000") as refused:
        make()
    assert refused.value.field == field
