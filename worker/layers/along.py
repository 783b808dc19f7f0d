"""Pooling along one axis of images: the maximum and the sum of every window, each with its way back.

A window is seen as one array for each of its elements, with that element's number in all windows at once, so that NumPy
works on long arrays however small the windows are.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from worker.arrays import Array
from worker.layers.windows import Windows

Pooled: TypeAlias = tuple[Array, Callable[[Array], Array]]
"""What comes of pooling, y, and the way back: dx from dy."""


@dataclass(frozen=True)
class Along:
    """Windows along an axis of x (rows, height, width, channels): 0 for height, 1 for width."""

    windows: Windows
    axis: int

    def maximum(self, x: Array) -> Pooled:
        """The maximum of every window. Its gradient goes to the first of the numbers that are the maximum."""
        padded = self._padded(x, -np.inf)
        *earlier, last = self._elements(padded)
        y: Array = functools.reduce(np.maximum, [*earlier, last])

        def back(dy: Array) -> Array:
            dx = self._room(padded)
            *places, rest = self._elements(dx)
            for element, place in zip(earlier, places, strict=True):
                share = dy * (element == y)
                self._put(place, share)
                dy = dy - share
            self._put(rest, dy)
            return self._inside(dx)

        return y, back

    def sum(self, x: Array) -> Pooled:
        """The sum of every window."""
        padded = self._padded(x, 0)

        def back(dy: Array) -> Array:
            dx = self._room(padded)
            for place in self._elements(dx):
                self._put(place, dy)
            return self._inside(dx)

        y: Array = functools.reduce(np.add, self._elements(padded))
        return y, back

    def _elements(self, padded: Array) -> Sequence[Array]:
        """For each element of a window, its numbers in all windows."""
        return [padded[self.windows.along(self.axis, element)] for element in range(self.windows.kernel[self.axis])]

    @property
    def _put(self) -> Callable[[Any, Any], Any]:
        """Puts numbers into their places; where windows overlap, by adding."""
        overlap = self.windows.kernel[self.axis] > self.windows.stride[self.axis]
        return operator.iadd if overlap else np.copyto

    def _room(self, padded: Array) -> Array:
        """Room for the gradient of padded x: zeros, unless every number is put there anyway."""
        size, moves, count = (of[self.axis] for of in (self.windows.kernel, self.windows.stride, self.windows.output))
        return (
            np.empty_like(padded)
            if size == moves and count * size == padded.shape[1 + self.axis]
            else (np.zeros_like(padded))
        )

    def _padded(self, x: Array, value: float) -> Array:
        before, after = self.windows.before[self.axis], self.windows.after[self.axis]
        if not before and not after:
            return x
        shape = list(x.shape)
        shape[1 + self.axis] += before + after
        padded = np.full(shape, value, x.dtype)
        self._inside(padded)[...] = x
        return padded

    def _inside(self, padded: Array) -> Array:
        """Padded x without its padding."""
        inside = self.windows.inside[1 + self.axis]
        return padded[:, inside] if self.axis == 0 else padded[:, :, inside]


def maxima(x: Array, windows: Windows) -> Pooled:
    """The maximum of every window of x (rows, height, width, channels), as the maximum of maxima."""
    return _both(lambda axis, numbers: Along(windows, axis).maximum(numbers), x, windows)


def means(x: Array, windows: Windows) -> Pooled:
    """The mean over every window of x (rows, height, width, channels) of what is no padding."""
    y, back = _sums(x, windows)
    counts, _ = _sums(np.ones((1, *windows.image, 1), x.dtype), windows)
    share = 1 / counts
    return y * share, lambda dy: back(dy * share)


def _sums(x: Array, windows: Windows) -> Pooled:
    return _both(lambda axis, numbers: Along(windows, axis).sum(numbers), x, windows)


def _both(pool: Callable[[int, Array], Pooled], x: Array, windows: Windows) -> Pooled:
    """Pools along height, and what comes of it along width."""
    down, back_down = pool(0, x)
    if windows.padded[1] == windows.output[1] and windows.kernel[1] == 1:
        return down, back_down
    across, back_across = pool(1, down)
    return across, lambda dy: back_down(back_across(dy))
