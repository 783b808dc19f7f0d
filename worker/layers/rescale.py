"""Inputs brought to about unit size: bytes of images to 0..1, or features to mean 0 and deviation 1."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from worker.arrays import Array, Shape
from worker.errors import InvalidValue
from worker.layers.layer import Backward, Context, Parameter, Params

MOST_FEATURES = 1_000_000
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Rescale:
    """y = x scale + offset, nothing of which is learned.

    Scale and offset are single numbers, or one for each feature: along the last axis of a row. To standardise, scale is
    1 / deviation and offset is -mean / deviation.
    """

    scale: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        for field, values in (("scale", self.scale), ("offset", self.offset)):
            if not 1 <= len(values) <= MOST_FEATURES:
                raise InvalidValue(field, f"has {len(values):,} numbers; must have 1 to {MOST_FEATURES:,}")
            if wrong := [value for value in values if not -LARGEST <= value <= LARGEST]:
                raise InvalidValue(field, f"has {wrong[0]:g}; must be finite, and within single precision")

    def output_shape(self, input_shape: Shape) -> Shape:
        features = input_shape[-1] if input_shape else 1
        for field, values in (("scale", self.scale), ("offset", self.offset)):
            if len(values) not in (1, features):
                raise InvalidValue(
                    field,
                    f"has {len(values):,} numbers, but rows of shape {input_shape} reach it; give one, or {features:,}",
                )
        return input_shape

    def parameters(self, input_shape: Shape) -> Mapping[str, Parameter]:  # noqa: ARG002 - none, whatever the shape
        return {}

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:  # noqa: ARG002
        scale, offset = (_values(values, x) for values in (self.scale, self.offset))
        y = x * scale
        y += offset
        return y, lambda dy, _grads: dy * scale


def _values(values: tuple[float, ...], x: Array) -> Array:
    """A scalar, or one number for each along the last axis of x."""
    array = np.array(values, x.dtype)
    return array[0] if len(values) == 1 else array
