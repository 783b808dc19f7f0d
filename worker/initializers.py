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
    ONES = "ONES"
    GLOROT_UNIFORM = "GLOROT_UNIFORM"
    GLOROT_NORMAL = "GLOROT_NORMAL"
    HE_UNIFORM = "HE_UNIFORM"
    HE_NORMAL = "HE_NORMAL"
    LECUN_UNIFORM = "LECUN_UNIFORM"
    LECUN_NORMAL = "LECUN_NORMAL"
    ORTHOGONAL = "ORTHOGONAL"


def initialize(initializer: Initializer, rng: np.random.Generator, shape: Shape, fan_in: int, fan_out: int) -> Array:
    """Draws an array of `shape` in float64.

    `fan_in` and `fan_out` are the numbers of inputs that one output sums, and of outputs that one input reaches.
    """
    return _DRAWS[initializer](rng, shape, fan_in, fan_out)


def _zeros(_rng: np.random.Generator, shape: Shape, _fan_in: int, _fan_out: int) -> Array:
    return np.zeros(shape)


def _ones(_rng: np.random.Generator, shape: Shape, _fan_in: int, _fan_out: int) -> Array:
    return np.ones(shape)


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


def _lecun_uniform(rng: np.random.Generator, shape: Shape, fan_in: int, _fan_out: int) -> Array:
    """Variance 1 / fan_in (LeCun et al. 1998, "Efficient BackProp", eq. 16)."""
    limit = math.sqrt(3 / fan_in)
    return rng.uniform(-limit, limit, shape)


def _lecun_normal(rng: np.random.Generator, shape: Shape, fan_in: int, _fan_out: int) -> Array:
    return rng.standard_normal(shape) * math.sqrt(1 / fan_in)


def _orthogonal(rng: np.random.Generator, shape: Shape, _fan_in: int, _fan_out: int) -> Array:
    """A random orthonormal matrix over the last axis, which keeps lengths (Saxe et al. 2014, section 3)."""
    rows, columns = math.prod(shape[:-1]), shape[-1]
    drawn = rng.standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(drawn)
    q *= np.sign(np.diagonal(r))  # without this the draw is not uniform over all rotations (Mezzadri 2007)
    matrix: Array = q if rows >= columns else q.T
    return matrix.reshape(shape)


_DRAWS: dict[Initializer, Callable[[np.random.Generator, Shape, int, int], Array]] = {
    Initializer.ZEROS: _zeros,
    Initializer.ONES: _ones,
    Initializer.GLOROT_UNIFORM: _glorot_uniform,
    Initializer.GLOROT_NORMAL: _glorot_normal,
    Initializer.HE_UNIFORM: _he_uniform,
    Initializer.HE_NORMAL: _he_normal,
    Initializer.LECUN_UNIFORM: _lecun_uniform,
    Initializer.LECUN_NORMAL: _lecun_normal,
    Initializer.ORTHOGONAL: _orthogonal,
}
