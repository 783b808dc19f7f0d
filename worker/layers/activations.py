"""Functions applied element by element, and softmax.

Each is written with the derivative that its output gives away, where it does, so that the backward keeps y alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from worker.arrays import Array, Shape
from worker.errors import InvalidValue
from worker.layers.layer import Backward, Context, Parameter, Params

LARGEST_ALPHA = 100

FLAT = 0.05
"""A curve is called flat below this share of its greatest slope: ten layers there leave 1e-13 of a gradient."""


@dataclass(frozen=True)
class Activation:
    """A layer without parameters that keeps the shape."""

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def parameters(self, input_shape: Shape) -> Mapping[str, Parameter]:  # noqa: ARG002 - none, whatever the shape
        return {}


@dataclass(frozen=True)
class ReLU(Activation):
    """y = max(x, 0); dx = dy where y > 0, else 0. At zero the derivative is taken as 0."""

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:  # noqa: ARG002
        y = np.maximum(x, 0)
        return y, lambda dy, _grads: dy * (y > 0)

    def alive(self, y: Array) -> Array:
        """y > 0."""
        alive: Array = y > 0
        return alive


@dataclass(frozen=True)
class LeakyReLU(Activation):
    """y = max(x, slope x); dx = dy where y > 0, else slope dy (Maas, Hannun and Ng 2013).

    What is below zero still lets some gradient through, so that no unit falls silent for good.
    """

    slope: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.slope < 1:
            raise InvalidValue("slope", f"is {self.slope:g}; must be 0 up to, but not including, 1")

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:  # noqa: ARG002
        y = np.maximum(x, x * self.slope)

        def backward(dy: Array, _grads: Params) -> Array:
            dx: Array = (y > 0) * y.dtype.type(1 - self.slope)
            dx += self.slope
            dx *= dy
            return dx

        return y, backward


@dataclass(frozen=True)
class ELU(Activation):
    """y = x above zero, else alpha (exp(x) - 1); dx = dy above zero, else dy (y + alpha) (Clevert et al. 2016, eq. 15).

    exp sees no number above zero, and so cannot overflow.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= LARGEST_ALPHA:
            raise InvalidValue("alpha", f"is {self.alpha:g}; must be above 0, and at most {LARGEST_ALPHA}")

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:  # noqa: ARG002
        below = np.minimum(x, 0)
        np.exp(below, out=below)
        below -= 1
        below *= self.alpha
        y = np.maximum(x, 0)
        y += below

        def backward(dy: Array, _grads: Params) -> Array:
            dx: Array = (y > 0) * y.dtype.type(1 - self.alpha)
            dx += below
            dx += self.alpha
            dx *= dy
            return dx

        return y, backward


@dataclass(frozen=True)
class Tanh(Activation):
    """y = tanh(x); dx = dy (1 - y^2)."""

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:  # noqa: ARG002
        y = np.tanh(x)
        return y, lambda dy, _grads: dy * (1 - y * y)

    def flat(self, y: Array) -> Array:
        """1 - y^2 < 0.05, the greatest slope being 1."""
        flat: Array = 1 - y * y < FLAT
        return flat


@dataclass(frozen=True)
class Sigmoid(Activation):
    """y = 1 / (1 + exp(-x)); dx = dy y (1 - y)."""

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:  # noqa: ARG002
        y = logistic(x)
        return y, lambda dy, _grads: dy * y * (1 - y)

    def flat(self, y: Array) -> Array:
        """y (1 - y) < 0.05 / 4, the greatest slope being 1/4."""
        flat: Array = y * (1 - y) < FLAT / 4
        return flat


@dataclass(frozen=True)
class SiLU(Activation):
    """y = x s with s = 1 / (1 + exp(-x)); dx = dy (s + y (1 - s)) (Elfwing, Uchibe and Doya 2018, eq. 9)."""

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:  # noqa: ARG002
        s = logistic(x)
        y = x * s
        return y, lambda dy, _grads: dy * (s + y * (1 - s))


@dataclass(frozen=True)
class Softplus(Activation):
    """y = log(1 + exp(x)); dx = dy / (1 + exp(-x)) = dy exp(x - y) (Dugas et al. 2001).

    Computed as max(x, 0) + log(1 + exp(-|x|)), which is the same and cannot overflow.
    """

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:  # noqa: ARG002
        y = np.abs(x)
        np.negative(y, out=y)
        np.exp(y, out=y)
        np.log1p(y, out=y)
        y += np.maximum(x, 0)
        return y, lambda dy, _grads: dy * np.exp(x - y)


@dataclass(frozen=True)
class Softmax(Activation):
    """y_i = exp(x_i) / sum over j of exp(x_j), along the last axis; dx = y (dy - sum of dy y) (Bridle 1990).

    Shifting by the largest x keeps exp within range and changes nothing. Before a cross-entropy, which takes logits,
    it has no place.
    """

    def output_shape(self, input_shape: Shape) -> Shape:
        if not input_shape:
            raise ValueError("softmax needs an axis to sum along, but rows of shape () reach it; store them as (n,)")
        return input_shape

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:  # noqa: ARG002
        y = x - np.maximum.reduce(x, axis=-1, keepdims=True)
        np.exp(y, out=y)
        y /= np.add.reduce(y, axis=-1, keepdims=True)

        def backward(dy: Array, _grads: Params) -> Array:
            dx: Array = dy * y
            along = np.add.reduce(dx, axis=-1, keepdims=True)
            dx -= y * along
            return dx

        return y, backward


def logistic(x: Array) -> Array:
    """1 / (1 + exp(-x)), computed as (1 + tanh(x / 2)) / 2, which is the same and cannot overflow."""
    y: Array = np.tanh(x * 0.5)
    y *= 0.5
    y += 0.5
    return y
