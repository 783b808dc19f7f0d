"""Functions applied element by element.

Each is written with the derivative that its output gives away, so that the backward keeps y alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from worker.arrays import Array, Shape
from worker.layers.layer import Backward, Context, Parameter, Params


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


@dataclass(frozen=True)
class Tanh(Activation):
    """y = tanh(x); dx = dy (1 - y^2)."""

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:  # noqa: ARG002
        y = np.tanh(x)
        return y, lambda dy, _grads: dy * (1 - y * y)


@dataclass(frozen=True)
class Sigmoid(Activation):
    """y = 1 / (1 + exp(-x)); dx = dy y (1 - y).

    Computed as (1 + tanh(x / 2)) / 2, which is the same and cannot overflow.
    """

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:  # noqa: ARG002
        y = np.tanh(x * 0.5)
        y *= 0.5
        y += 0.5
        return y, lambda dy, _grads: dy * y * (1 - y)
