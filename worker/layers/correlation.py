"""The arithmetic of convolutions: what every window of an image gives, and its two gradients, as matrix products.

y[p] = sum over elements k of x[p stride + k dilation] W[k], channels last. The elements of each window are copied side
by side into a line of a matrix of patches ("im2col", Chellapilla et al. 2006), so that one product does all sums. A row
of a batch may have patches many times its size, so they are made for a few rows at a time, as many as stay in the
processor's cache; how many follows from shapes alone, and so do the bits of every sum.

The bias is the weight of an input that is always 1: a last column of the patches.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided

from worker.arrays import Array
from worker.layers.tiles import Tiles, over_rows
from worker.layers.windows import Windows

TILE = 131_072
"""Numbers in a tile of patches: 512 KiB in single precision (measured: docs/architecture.md)."""

SHORT_RUN = 16
"""Neighbouring numbers below which it is faster to copy the patches the other way round, element by element."""


@dataclass(frozen=True)
class Tile:
    """Patches of some rows of the batch and some lines of their outputs."""

    place: tuple[slice, slice]
    patches: Array
    """(groups, windows, elements), the elements of a window by kernel row, kernel column and channel, and then a 1."""


def correlate(x: Array, weight: Array, bias: Array | None, windows: Windows, groups: int = 1) -> Array:
    """What every window gives, (rows, *outputs, filters).

    x is (rows, height, width, channels), the weight (*kernel, channels / groups, filters): each group of channels has
    filters of its own.
    """
    filters = weight.shape[-1]
    matrix = _matrix(weight, bias, groups)
    y = np.empty((len(x), *windows.output, filters), x.dtype)
    for tile in _tiles(x, windows, groups):
        cut = Tiles.of(matrix, tile.patches.shape[1])
        np.matmul(cut.left(tile.patches), cut.right, out=cut.out(_grouped(y[tile.place], groups)))
    return y


def weight_gradient(x: Array, dy: Array, windows: Windows, groups: int = 1) -> tuple[Array, Array]:
    """(dW, db) of `correlate`, for dy (rows, *outputs, filters): patches^T dy."""
    filters = dy.shape[-1]
    elements = _elements(x, windows, groups)
    total = np.zeros((groups, elements + 1, filters // groups), x.dtype)
    term = np.empty_like(total)
    for tile in _tiles(x, windows, groups):
        over_rows(tile.patches, _grouped(dy[tile.place], groups), term)
        total += term
    of_weight = total[:, :elements].transpose(1, 0, 2).reshape(*windows.kernel, -1, filters)
    return of_weight, total[:, elements].reshape(filters)


def input_gradient(dy: Array, weight: Array, windows: Windows, groups: int = 1) -> Array:
    """dx of `correlate`, (rows, height, width, channels), for dy (rows, *outputs, filters).

    Windows that move by single steps give it as such windows again, over dy, with the kernel turned round; others by
    adding what every window sends back to where it came from.
    """
    if windows.stride == (1, 1):
        return correlate(dy, _turned(weight, groups), None, windows.turned(), groups)
    return _scatter(dy, weight, windows, groups)


def _tiles(x: Array, windows: Windows, groups: int) -> Iterator[Tile]:
    """All windows, tile by tile. Every tile's patches are in the same memory: use them before taking the next."""
    height, width = windows.output
    elements = _elements(x, windows, groups)
    of_line = groups * width * (elements + 1)
    lines = min(max(TILE // of_line, 1), height)
    rows = min(max(TILE // (of_line * height), 1), max(len(x), 1))
    copy = _Copy(groups, rows * lines * width, elements, windows, x)
    for start, within in _in_margins(x, windows, rows, groups):
        for top in range(0, height, lines):
            place = slice(start, start + rows), slice(top, top + lines)
            yield Tile(place, copy.of(within[:, :, top : top + lines]))


def _in_margins(x: Array, windows: Windows, rows: int, groups: int) -> Iterator[tuple[int, Array]]:
    """The number of a first row, and the windows of this and the next rows, with zeros around each image."""
    starts = range(0, len(x), rows)
    if windows.padded == windows.image:
        overlapping = _overlapping(x, windows, groups)
        for start in starts:
            yield start, overlapping[:, start : start + rows]
        return
    padded = np.zeros((rows, *windows.padded, x.shape[-1]), x.dtype)
    overlapping, inside = _overlapping(padded, windows, groups), padded[windows.inside]
    for start in starts:
        part = x[start : start + rows]
        inside[: len(part)] = part
        yield start, overlapping[:, : len(part)]


def _overlapping(padded: Array, windows: Windows, groups: int) -> Array:
    """All windows, (groups, rows, *outputs, *kernel, channels of a group): a view in which they overlap."""
    of_row, of_line, of_place, of_channel = padded.strides
    (down, right), (apart_down, apart_right) = windows.stride, windows.dilation
    channels = padded.shape[-1] // groups
    shape = (groups, len(padded), *windows.output, *windows.kernel, channels)
    strides = (channels * of_channel, of_row, of_line * down, of_place * right)
    return as_strided(padded, shape, (*strides, of_line * apart_down, of_place * apart_right, of_channel))


class _Copy:
    """The memory of patches, laid out as copying goes fastest.

    Usually window by window. Where few neighbouring numbers belong to a window, element by element: then it is the
    places of an image that are neighbours. Either way a matrix product takes them as they are.
    """

    def __init__(self, groups: int, count: int, elements: int, windows: Windows, x: Array) -> None:
        channels = x.shape[-1] // groups
        across = windows.kernel[1] if windows.image[1] > 1 else windows.kernel[0]
        self._by_element = channels * (across if groups == 1 else 1) < SHORT_RUN
        self._elements = elements
        shape = (groups, elements + 1, count) if self._by_element else (groups, count, elements + 1)
        memory = np.empty(shape, x.dtype)
        self._patches = memory.transpose(0, 2, 1) if self._by_element else memory
        self._patches[..., elements] = 1

    def of(self, windows: Array) -> Array:
        """The patches (groups, windows, elements + 1) of (groups, rows, *outputs, *kernel, channels)."""
        groups, rows, height, width, *kernel = windows.shape
        patches = self._patches[:, : rows * height * width]
        patches[..., : self._elements].reshape(groups, rows, height, width, *kernel)[...] = windows
        return patches


def _scatter(dy: Array, weight: Array, windows: Windows, groups: int) -> Array:
    channels = weight.shape[2] * groups
    dx = np.empty((len(dy), *windows.image, channels), dy.dtype)
    parts = weight.reshape(*weight.shape[:3], groups, -1).transpose(0, 1, 3, 4, 2)
    rows = max(TILE // (windows.padded[0] * windows.padded[1] * channels), 1)
    for start in range(0, len(dy), rows):
        part = dy[start : start + rows]
        padded = np.zeros((len(part), *windows.padded, groups, weight.shape[2]), dy.dtype)
        by_window = _grouped(part, groups)
        for row, column in np.ndindex(windows.kernel):
            sent = (by_window @ parts[row, column]).transpose(1, 0, 2)
            at = padded[windows.places(row, column)]
            at += sent.reshape(at.shape)
        dx[start : start + rows] = padded[windows.inside].reshape(len(part), *windows.image, channels)
    return dx


def _elements(x: Array, windows: Windows, groups: int) -> int:
    """The numbers in a window of one group."""
    channels: int = x.shape[-1]
    return math.prod(windows.kernel) * channels // groups


def _matrix(weight: Array, bias: Array | None, groups: int) -> Array:
    """The weight as it meets patches, (groups, elements + 1, filters of a group), with the bias below."""
    filters = weight.shape[-1] // groups
    by_element = weight.reshape(-1, groups, filters)
    matrix = np.zeros((groups, len(by_element) + 1, filters), weight.dtype)
    matrix[:, :-1] = by_element.transpose(1, 0, 2)
    if bias is not None:
        matrix[:, -1] = bias.reshape(groups, filters)
    return matrix


def _turned(weight: Array, groups: int) -> Array:
    """The weight that leads back, from filters to channels, (*kernel, filters / groups, channels)."""
    height, width, channels, filters = weight.shape
    by_group = weight[::-1, ::-1].reshape(height, width, channels, groups, filters // groups)
    return by_group.transpose(0, 1, 4, 3, 2).reshape(height, width, filters // groups, groups * channels)


def _grouped(y: Array, groups: int) -> Array:
    """(rows, *outputs, filters) as (groups, windows, filters of a group)."""
    return y.reshape(-1, groups, y.shape[-1] // groups).transpose(1, 0, 2)
