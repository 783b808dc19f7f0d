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
from worker.layers.layer import Backward, Context, Parameter, Params, blanked
from worker.layers.windows import Padding, Steps, Windows, check_places, check_size, images, steps, within


class Pooling(Enum):
    """What becomes of a window, named as in the contract."""

    MAX = "MAX"
    AVERAGE = "AVERAGE"


@dataclass(frozen=True)
class Pool:
    """y[p] = the maximum, or the mean, of x over a window, channel by channel.

    x is (rows, *places, channels) and y (rows, *windows, channels). What padding adds takes no part: a mean is over the
    numbers that are there. Of several numbers that are the largest, one gets the gradient. Padded places of sequences
    are no part of a window either, and a window that a sequence would not have without them is padded itself: 0.
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
        pool, mask = (maxima if self.function is Pooling.MAX else means), context.given(x)
        y, back = pool(images(x), windows) if mask is None else self._given(images(x), mask, windows)
        context.mask = None if mask is None else within(mask, windows.ends)

        def backward(dy: Array, _grads: Params) -> Array:
            return back(dy.reshape(y.shape)).reshape(x.shape)

        return y.reshape(len(x), *windows.output[: self.axes], x.shape[-1]), backward

    def _given(self, x: Array, mask: Array, windows: Windows) -> Pooled:
        """Of images (rows, time, width, channels) with padded places (rows, time)."""
        left = within(mask, windows.ends)[:, :, np.newaxis, np.newaxis]
        if self.function is Pooling.MAX:
            y, back = maxima(np.where(mask[:, :, np.newaxis, np.newaxis], x, np.finfo(x.dtype).min), windows)
            scale = left.astype(x.dtype)
        else:
            y, back = means(blanked(x, mask), windows)
            share, _ = means(blanked(np.ones((*x.shape[:3], 1), x.dtype), mask), windows)
            scale = np.divide(left, share, out=np.zeros_like(share), where=left)
        return y * scale, lambda dy: blanked(back(dy * scale), mask)

    def _steps(self) -> Steps:
        moves = self.stride or self.pool_size
        return steps(self.kind, self.axes, self.pool_size, moves, (1,), self.padding, self.padding_size, "pool_size")

    def windows(self, input_shape: Shape) -> Windows:
        """Over a row that enters."""
        return self._steps().over(input_shape)


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
        mask, context.mask = context.given(x), None
        seen = None if mask is None else np.repeat(mask, flat.shape[1] // mask.shape[1], axis=1)
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
