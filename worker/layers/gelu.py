"""The Gaussian error linear unit, and the normal distribution that it is made of.

NumPy has no error function. Networks compute in single precision, where a short formula is exact enough and fast;
in double precision, which is for checking gradients, Python's own is taken number by number.
"""

import math
from dataclasses import dataclass

import numpy as np

from worker.arrays import Array
from worker.layers.activations import Activation
from worker.layers.layer import Backward, Context, Params

ERFC_P = 0.3275911
ERFC_A = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
"""erfc(z) = (a1 t + a2 t^2 + ... + a5 t^5) exp(-z^2) with t = 1 / (1 + p z), z >= 0: within 1.5e-7 of the true value
(Hastings 1955; Abramowitz and Stegun 1964, 7.1.26)."""

TANH_SCALE, TANH_CUBE = math.sqrt(2 / math.pi), 0.044715


@dataclass(frozen=True)
class GELU(Activation):
    """y = x P(x), P being the normal distribution's share below x; dx = dy (P(x) + x p(x)), p being its density.

    `approximate` takes P(x) = (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2 instead, which is within 5e-4 of it: for
    models that were trained so (Hendrycks and Gimpel 2016, section 2).
    """

    approximate: bool = False

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:  # noqa: ARG002
        below, density = _tanh_distribution(x) if self.approximate else normal_distribution(x)

        def backward(dy: Array, _grads: Params) -> Array:
            dx = x * density
            dx += below
            dx *= dy
            return dx

        return x * below, backward


def normal_distribution(x: Array) -> tuple[Array, Array]:
    """The standard normal distribution's share below x, and its density at x.

    In double precision the share is as exact as Python's, in single precision within 3e-7 of the true one: less than
    1e-7 by the formula, the rest by rounding.
    """
    density = np.exp(-0.5 * (x * x))  # for now without its factor: exp(-z^2) for z = |x| / sqrt(2)
    if x.dtype == np.float32:
        t = np.abs(x)
        t *= ERFC_P / math.sqrt(2)
        t += 1
        np.reciprocal(t, out=t)
        above = t * ERFC_A[-1]
        for a in ERFC_A[-2::-1]:
            above += a
            above *= t
        above *= density
        above *= 0.5
        # So far it is what lies above |x|: below a negative x, and above the others.
        below = np.logical_not(np.signbit(x)) - np.copysign(above, x)
    else:
        of_each = (math.erfc(-each / math.sqrt(2)) / 2 for each in x.ravel().tolist())
        below = np.fromiter(of_each, x.dtype, x.size).reshape(x.shape)
    density *= 1 / math.sqrt(2 * math.pi)
    return below, density


def _tanh_distribution(x: Array) -> tuple[Array, Array]:
    """The same, roughly: (1 + tanh(u)) / 2 with u = sqrt(2 / pi) (x + 0.044715 x^3), and the slope of that."""
    square = x * x
    below = square * TANH_CUBE
    below += 1
    below *= x
    below *= TANH_SCALE
    np.tanh(below, out=below)
    below *= 0.5
    below += 0.5
    # d tanh(u) / du = 1 - tanh(u)^2, and with P = (1 + tanh(u)) / 2 half of it is 2 P (1 - P).
    density = 1 - below
    density *= below
    square *= 3 * TANH_CUBE
    square += 1
    density *= square
    density *= 2 * TANH_SCALE
    return below, density
