"""Pooling: each window of a sequence or an image becomes its largest number, or its mean."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import numpy as np

from worker.arrays import Array, Shape
from worker.errors import InvalidValue
from worker.layers.along import Pooled, maxima, means
from worker.layers.layer import Backward, Context, Parameter, Params
from worker.layers.windows import Padding, Steps, Windows, as_image, check_places, check_size, images, steps


class Pooling(Enum):
    """What becomes of a window, named as in the contract."""

    MAX = "MAX"
    AVERAGE = "AVERAGE"


@dataclass(frozen=True)
class Pool:
    """y[p] = the maximum, or the mean, of x over a window, channel by channel.

    x is (rows, *places, channels) and y (rows, *windows, channels). What padding adds takes no part: a mean is over the
    numbers that are there. Of several numbers that are the largest, one gets the gradient.
    """

    kind: ClassVar[str]
    axes: ClassVar[int]

    function: Pooling = Pooling.MAX
    pool_size: Shape = (2,)
    """One number for all axes, or one for each; so are stride and padding_size."""
    stride: Shape = ()
    """By default pool_size, so that every number is in one window."""
    padding: Padding = Padding.VALID
    padding_size: Shape = ()

    def __post_init__(self) -> None:
        if not self.pool_size:
            raise InvalidValue("pool_size", "is empty; leave it out for 2")
        self._steps()

    def output_shape(self, input_shape: Shape) -> Shape:
        check_places(self.kind, self.axes, input_shape)
        windows = self.windows(input_shape)
        check_size(self.kind, windows, input_shape[-1], input_shape[-1])
        return (*windows.output[: self.axes], input_shape[-1])

    def parameters(self, input_shape: Shape) -> Mapping[str, Parameter]:  # noqa: ARG002 - none, whatever the shape
        return {}

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:  # noqa: ARG002
        windows = self.windows(x.shape[1:])
        y, back = (maxima if self.function is Pooling.MAX else means)(images(x), windows)

        def backward(dy: Array, _grads: Params) -> Array:
            return back(dy.reshape(y.shape)).reshape(x.shape)

        return y.reshape(len(x), *windows.output[: self.axes], x.shape[-1]), backward

    def _steps(self) -> Steps:
        moves = self.stride or self.pool_size
        return steps(self.kind, self.axes, self.pool_size, moves, (1,), self.padding, self.padding_size, "pool_size")

    def windows(self, input_shape: Shape) -> Windows:
        """Over a row that enters."""
        return self._steps().over(as_image(input_shape))


@dataclass(frozen=True)
class Pool1d(Pool):
    """Pooling of sequences, (rows, time, channels)."""

    kind, axes = "pool1d", 1


@dataclass(frozen=True)
class Pool2d(Pool):
    """Pooling of images, (rows, height, width, channels)."""

    kind, axes = "pool2d", 2


@dataclass(frozen=True)
class GlobalPool:
    """The mean, or the maximum, over all axes of a row but the last: (rows, ..., channels) becomes (rows, channels).

    Padded places of sequences take no part; a row that has no others becomes 0.
    """

    function: Pooling = Pooling.AVERAGE

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) < 2 or min(input_shape) < 1:
            raise ValueError(
                "global_pool takes rows of shape (time, channels) or (height, width, channels), "
                f"but rows of shape {input_shape} reach it"
            )
        return input_shape[-1:]

    def parameters(self, input_shape: Shape) -> Mapping[str, Parameter]:  # noqa: ARG002 - none, whatever the shape
        return {}

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:  # noqa: ARG002
        flat = x.reshape(len(x), math.prod(x.shape[1:-1]), x.shape[-1])
        seen = context.mask if x.ndim == 3 and context.mask is not None else None
        if seen is not None and seen.shape[1] != x.shape[1]:
            seen = None
        y, back = (_global_maximum if self.function is Pooling.MAX else _global_mean)(flat, seen)
        return y, lambda dy, _grads: back(dy).reshape(x.shape)


def _global_mean(x: Array, seen: Array | None) -> Pooled:
    """Over the places of x (rows, places, channels) that are seen (rows, places)."""
    count = np.full((len(x), 1), x.shape[1]) if seen is None else seen.sum(axis=1, keepdims=True)
    share = np.reciprocal(np.maximum(count, 1).astype(x.dtype))
    weights = np.broadcast_to(share, x.shape[:2]) if seen is None else seen * share
    y = np.matmul(weights[:, np.newaxis], x)[:, 0]
    return y, lambda dy: weights[..., np.newaxis] * dy[:, np.newaxis]


def _global_maximum(x: Array, seen: Array | None) -> Pooled:
    among = x if seen is None else np.where(seen[..., np.newaxis], x, -np.inf).astype(x.dtype, copy=False)
    first = np.argmax(among, axis=1)[:, np.newaxis]
    y = np.take_along_axis(among, first, axis=1)[:, 0]
    whole = np.ones((len(x), 1), x.dtype) if seen is None else seen.any(axis=1, keepdims=True).astype(x.dtype)

    def back(dy: Array) -> Array:
        dx = np.zeros_like(x)
        np.put_along_axis(dx, first, (dy * whole)[:, np.newaxis], axis=1)
        return dx

    return np.where(whole > 0, y, np.zeros((), x.dtype)), back
