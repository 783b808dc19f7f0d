"""Layers that draw from a normal distribution while training: noise to be learned away, and a latent code."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from worker.arrays import Array, Shape
from worker.errors import InvalidValue
from worker.layers.activations import Activation
from worker.layers.layer import Backward, Context, Parameter, Params

LARGEST_DEVIATION = 1e6
LARGEST_WEIGHT = 1e6
LOG_VARIANCES = (-20.0, 10.0)
"""Within what log variances are taken: deviations from 0.00005 to 150. Beyond, exp would lose all sense of size."""


@dataclass(frozen=True)
class GaussianNoise(Activation):
    """y = x + stddev e while training, e being normal noise, else y = x; dx = dy.

    Before the first layer it makes a denoising autoencoder (Vincent et al. 2008), elsewhere it acts as a penalty on
    steep functions (Bishop 1995, "Training with noise is equivalent to Tikhonov regularization").
    """

    stddev: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.stddev <= LARGEST_DEVIATION:
            raise InvalidValue("stddev", f"is {self.stddev:g}; must be 0 to {LARGEST_DEVIATION:,.0f}")

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:  # noqa: ARG002
        if context.draw is None or self.stddev == 0:
            return x, lambda dy, _grads: dy
        y = _noise(x.shape, x, context)
        y *= self.stddev
        y += x
        return y, lambda dy, _grads: dy


@dataclass(frozen=True)
class GaussianLatent:
    """y = m + exp(v / 2) e while training, e being normal noise, else y = m; x = [m, v] (Kingma and Welling 2014).

    x (rows, ..., 2 n) holds means m and log variances v, y is (rows, ..., n). To the summed loss it adds
    kl_weight (m^2 + exp(v) - 1 - v) / 2, summed over everything: how far the codes are from a standard normal
    distribution (appendix B). With the gradient of that, dm = dy + kl_weight m and
    dv = dy exp(v / 2) e / 2 + kl_weight (exp(v) - 1) / 2. A log variance out of range is taken as the nearest in it,
    and gets no gradient.
    """

    kl_weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.kl_weight <= LARGEST_WEIGHT:
            raise InvalidValue("kl_weight", f"is {self.kl_weight:g}; must be 0 to {LARGEST_WEIGHT:,.0f}")

    def output_shape(self, input_shape: Shape) -> Shape:
        if not input_shape or input_shape[-1] < 2 or input_shape[-1] % 2:
            raise ValueError(
                f"gaussian_latent takes rows of shape (..., 2 n), n means and then n log variances, but rows of shape "
                f"{input_shape} reach it; let the layer before end in an even number"
            )
        return (*input_shape[:-1], input_shape[-1] // 2)

    def parameters(self, input_shape: Shape) -> Mapping[str, Parameter]:  # noqa: ARG002 - none, whatever the shape
        return {}

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:  # noqa: ARG002
        n = x.shape[-1] // 2
        m, given = x[..., :n], x[..., n:]
        v = np.clip(given, *LOG_VARIANCES)
        deviation = np.exp(v * 0.5)
        variance = deviation * deviation
        weight = self._weight(x, context)
        context.mask = context.given(x)
        divergence = 0.5 * np.add.reduce(weight * (m * m + variance - 1 - v), axis=None, dtype=np.float64)
        context.penalties.append(float(divergence))
        # e exp(v / 2), which is what the noise comes to, and without noise nothing.
        spread = np.zeros_like(v) if context.draw is None else _noise(v.shape, v, context) * deviation

        def backward(dy: Array, _grads: Params) -> Array:
            dx = np.empty_like(x)
            dx[..., :n] = dy + weight * m
            dv = dx[..., n:]
            np.multiply(dy, spread, out=dv)
            dv += weight * (variance - 1)
            dv *= 0.5
            dv *= v == given
            return dx

        return m + spread, backward

    def _weight(self, x: Array, context: Context) -> Array:
        """How much the divergence of each row counts, or of each of its places, in a shape that multiplies x."""
        counts = context.counts(x)
        each = np.ones(1, x.dtype) if counts is None else counts
        return (self.kl_weight * each).reshape(*each.shape, *[1] * (x.ndim - each.ndim)).astype(x.dtype, copy=False)


def _noise(shape: Shape, like: Array, context: Context) -> Array:
    """Standard normal numbers, the same whatever the precision."""
    return context.generator().standard_normal(shape, np.float32).astype(like.dtype, copy=False)
