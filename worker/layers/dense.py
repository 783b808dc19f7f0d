"""The fully connected layer."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from worker.arrays import Array, Shape
from worker.errors import InvalidValue
from worker.initializers import Initializer
from worker.layers.layer import Backward, Context, Parameter, Params

LARGEST = 1_000_000


@dataclass(frozen=True)
class Dense:
    """y = x W + b, for x (rows, features), W (features, units), b (units,) and y (rows, units).

    x may have further axes before the last one, as in (rows, time, features): the layer acts on the last axis alone.
    """

    units: int
    initializer: Initializer = Initializer.GLOROT_UNIFORM

    def __post_init__(self) -> None:
        if not 1 <= self.units <= LARGEST:
            raise InvalidValue("units", f"is {self.units}; must be 1 to {LARGEST:,}")

    def output_shape(self, input_shape: Shape) -> Shape:
        if not input_shape:
            raise ValueError(
                "dense takes rows of shape (..., features), but rows of shape () reach it; store them as (1,)"
            )
        if 0 in input_shape:
            raise ValueError(f"dense takes rows of at least one feature, but rows of shape {input_shape} reach it")
        return (*input_shape[:-1], self.units)

    def parameters(self, input_shape: Shape) -> Mapping[str, Parameter]:
        features = input_shape[-1]
        return {
            "weight": Parameter((features, self.units), self.initializer, fan_in=features, fan_out=self.units),
            "bias": Parameter((self.units,), Initializer.ZEROS),
        }

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:
        weight = params["weight"]
        flat = x if x.ndim == 2 else x.reshape(-1, x.shape[-1])
        y = flat @ weight
        y += params["bias"]
        context.mask = context.given(x)

        def backward(dy: Array, grads: Params) -> Array:
            """dW = x^T dy, db = the sum of dy over rows, dx = dy W^T (Rumelhart, Hinton and Williams 1986)."""
            flat_dy = dy if x.ndim == 2 else dy.reshape(-1, self.units)
            if context.parameter_gradient:
                np.matmul(flat.T, flat_dy, out=grads["weight"])
                np.add.reduce(flat_dy, axis=0, out=grads["bias"])
            if not context.input_gradient:
                return dy
            dx = flat_dy @ weight.T
            return dx if x.ndim == 2 else dx.reshape(x.shape)

        return (y if x.ndim == 2 else y.reshape(*x.shape[:-1], self.units)), backward
