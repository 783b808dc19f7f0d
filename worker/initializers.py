"""How weights start.

The variance is chosen so that signals neither fade nor blow up on their way through the layers: Glorot for units whose
slope is near one at zero, He for ReLU, which silences half of them.
"""

import math
from collections.abc import Callable
from enum import Enum

import numpy as np

from worker.arrays import Array, Shape


class Initializer(Enum):
    """The ways to fill a parameter, named as in the contract."""

    ZEROS = "ZEROS"
    GLOROT_UNIFORM = "GLOROT_UNIFORM"
    GLOROT_NORMAL = "GLOROT_NORMAL"
    HE_UNIFORM = "HE_UNIFORM"
    HE_NORMAL = "HE_NORMAL"


def initialize(initializer: Initializer, rng: np.random.Generator, shape: Shape, fan_in: int, fan_out: int) -> Array:
    """Draws an array of `shape` in float64.

    `fan_in` and `fan_out` are the numbers of inputs that one output sums, and of outputs that one input reaches.
    """
    return _DRAWS[initializer](rng, shape, fan_in, fan_out)


def _zeros(_rng: np.random.Generator, shape: Shape, _fan_in: int, _fan_out: int) -> Array:
    return np.zeros(shape)


def _glorot_uniform(rng: np.random.Generator, shape: Shape, fan_in: int, fan_out: int) -> Array:
    """Within +-sqrt(6 / (fan_in + fan_out)): variance 2 / (fan_in + fan_out) (Glorot and Bengio 2010, eq. 16)."""
    limit = math.sqrt(6 / (fan_in + fan_out))
    return rng.uniform(-limit, limit, shape)


def _glorot_normal(rng: np.random.Generator, shape: Shape, fan_in: int, fan_out: int) -> Array:
    return rng.standard_normal(shape) * math.sqrt(2 / (fan_in + fan_out))


def _he_uniform(rng: np.random.Generator, shape: Shape, fan_in: int, _fan_out: int) -> Array:
    limit = math.sqrt(6 / fan_in)
    return rng.uniform(-limit, limit, shape)


def _he_normal(rng: np.random.Generator, shape: Shape, fan_in: int, _fan_out: int) -> Array:
    """Variance 2 / fan_in (He et al. 2015, "Delving deep into rectifiers", eq. 10)."""
    return rng.standard_normal(shape) * math.sqrt(2 / fan_in)


_DRAWS: dict[Initializer, Callable[[np.random.Generator, Shape, int, int], Array]] = {
    Initializer.ZEROS: _zeros,
    Initializer.GLOROT_UNIFORM: _glorot_uniform,
    Initializer.GLOROT_NORMAL: _glorot_normal,
    Initializer.HE_UNIFORM: _he_uniform,
    Initializer.HE_NORMAL: _he_normal,
}
