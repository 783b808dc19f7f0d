"""The variance with which weights start."""

import math

import numpy as np
import pytest

from worker.initializers import Initializer, initialize

FAN_IN, FAN_OUT = 400, 200
SHAPE = (FAN_IN, FAN_OUT)

VARIANCES = {
    Initializer.ZEROS: 0.0,
    Initializer.GLOROT_UNIFORM: 2 / (FAN_IN + FAN_OUT),
    Initializer.GLOROT_NORMAL: 2 / (FAN_IN + FAN_OUT),
    Initializer.HE_UNIFORM: 2 / FAN_IN,
    Initializer.HE_NORMAL: 2 / FAN_IN,
    Initializer.LECUN_UNIFORM: 1 / FAN_IN,
    Initializer.LECUN_NORMAL: 1 / FAN_IN,
    Initializer.ORTHOGONAL: 1 / FAN_IN,
}
UNIFORM = [Initializer.GLOROT_UNIFORM, Initializer.HE_UNIFORM, Initializer.LECUN_UNIFORM]
NORMAL = [Initializer.GLOROT_NORMAL, Initializer.HE_NORMAL, Initializer.LECUN_NORMAL]


def test_every_initializer_is_in_the_table() -> None:
    assert {*VARIANCES, Initializer.ONES} == set(Initializer)


@pytest.mark.parametrize("shape", [(7, 3), (3, 7), (5, 5), (2, 3, 4)], ids=str)
def test_orthogonal_keeps_lengths(shape: tuple[int, ...]) -> None:
    drawn = initialize(Initializer.ORTHOGONAL, np.random.default_rng(3), shape, 1, 1).reshape(-1, shape[-1])
    smaller = drawn.T @ drawn if len(drawn) >= shape[-1] else drawn @ drawn.T
    np.testing.assert_allclose(smaller, np.eye(len(smaller)), atol=1e-14)


@pytest.mark.parametrize("initializer", VARIANCES)
def test_mean_and_variance(initializer: Initializer) -> None:
    drawn = initialize(initializer, np.random.default_rng(3), SHAPE, FAN_IN, FAN_OUT)
    assert drawn.shape == SHAPE
    assert drawn.dtype == np.float64
    variance = VARIANCES[initializer]
    # Four standard errors: of the mean sqrt(variance / n), and of a normal's variance sqrt(2 / n) of itself.
    assert abs(drawn.mean()) <= 4 * math.sqrt(variance / drawn.size)
    assert drawn.var() == pytest.approx(variance, rel=4 * math.sqrt(2 / drawn.size))


@pytest.mark.parametrize("initializer", UNIFORM)
def test_uniform_fills_its_interval_and_stays_within(initializer: Initializer) -> None:
    drawn = np.abs(initialize(initializer, np.random.default_rng(3), SHAPE, FAN_IN, FAN_OUT))
    limit = math.sqrt(3 * VARIANCES[initializer])
    assert 0.999 * limit < drawn.max() <= limit


@pytest.mark.parametrize("initializer", NORMAL)
def test_normal_has_a_normal_share_within_one_deviation(initializer: Initializer) -> None:
    drawn = np.abs(initialize(initializer, np.random.default_rng(3), SHAPE, FAN_IN, FAN_OUT))
    share = float(np.mean(drawn < math.sqrt(VARIANCES[initializer])))
    assert share == pytest.approx(math.erf(1 / math.sqrt(2)), abs=0.01)
