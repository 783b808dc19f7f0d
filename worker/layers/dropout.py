"""Noise that keeps a network from relying on any one number: dropped in training, absent in prediction."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from worker.arrays import Array, Shape
from worker.errors import InvalidValue
from worker.layers.layer import Backward, Context, Parameter, Params


@dataclass(frozen=True)
class Dropout:
    """y = x m / (1 - rate), each element of m being 0 with probability `rate`, else 1 (Srivastava et al. 2014).

    Dividing while training leaves the expected sum as it is, so that prediction is y = x.
    """

    rate: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise InvalidValue("rate", f"is {self.rate:g}; must be 0 up to, but not including, 1")

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def parameters(self, input_shape: Shape) -> Mapping[str, Parameter]:  # noqa: ARG002 - none, whatever the shape
        return {}

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:  # noqa: ARG002
        if context.draw is None or self.rate == 0:
            return x, lambda dy, _grads: dy
        kept = context.generator().random(x.shape, np.float32) >= self.rate
        mask = kept * np.asarray(1 / (1 - self.rate), x.dtype)
        return x * mask, lambda dy, _grads: dy * mask
