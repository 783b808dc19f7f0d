"""The fully connected layer."""

import math
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
    """y = x W + b, for x (rows, features), W (features, units), b (units,) and y (rows, units)."""

    units: int
    initializer: Initializer = Initializer.GLOROT_UNIFORM

    def __post_init__(self) -> None:
        if not 1 <= self.units <= LARGEST:
            raise InvalidValue("units", f"is {self.units}; must be 1 to {LARGEST:,}")

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            raise ValueError(
                f"dense takes rows of shape (features,), but rows of shape {input_shape} reach it; "
                f"store them flat, as ({math.prod(input_shape)},)"
            )
        if input_shape[0] < 1:
            raise ValueError("dense takes rows of at least one feature, but rows of shape (0,) reach it")
        return (self.units,)

    def parameters(self, input_shape: Shape) -> Mapping[str, Parameter]:
        (features,) = input_shape
        return {
            "weight": Parameter((features, self.units), self.initializer, fan_in=features, fan_out=self.units),
            "bias": Parameter((self.units,), Initializer.ZEROS),
        }

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:
        weight = params["weight"]
        y = x @ weight
        y += params["bias"]

        def backward(dy: Array, grads: Params) -> Array:
            """dW = x^T dy, db = the sum of dy over rows, dx = dy W^T (Rumelhart, Hinton and Williams 1986)."""
            np.matmul(x.T, dy, out=grads["weight"])
            np.add.reduce(dy, axis=0, out=grads["bias"])
            return dy @ weight.T if context.input_gradient else dy

        return y, backward
