"""Where the windows of a convolution or a pooling lie: sizes, steps and margins along the two axes of an image.

A sequence is an image of width 1, so that one geometry serves both.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

import numpy as np

from worker.arrays import Array, Shape
from worker.errors import InvalidValue

Pair: TypeAlias = tuple[int, int]
"""Along height (or time) and along width."""

Ends: TypeAlias = tuple[Array, Array]
"""The numbers of two places in time for each window."""

LARGEST_KERNEL = 1024
LARGEST_IMAGE = 50_000_000
"""Numbers of one row with its margin, and of the patches of one line of it: what a layer holds at once."""


class Padding(Enum):
    """The margin of zeros around an image, named as in the contract."""

    VALID = "VALID"
    """None: the kernel lies wholly within the image."""
    SAME = "SAME"
    """As much as makes ceil(size / stride) outputs; of an odd margin the larger half is behind."""


@dataclass(frozen=True)
class Windows:
    """A kernel laid over an image at regular steps, its elements `dilation` apart."""

    image: Pair
    kernel: Pair
    stride: Pair
    dilation: Pair
    before: Pair
    """Zeros in front of the image."""
    after: Pair
    """Zeros behind it."""

    @property
    def padded(self) -> Pair:
        """The image with its margin."""
        return _pair(n + before + after for n, before, after in zip(self.image, self.before, self.after, strict=True))

    @property
    def extent(self) -> Pair:
        """How far a kernel reaches."""
        return _pair(apart * (size - 1) + 1 for size, apart in zip(self.kernel, self.dilation, strict=True))

    @property
    def output(self) -> Pair:
        """How many windows there are."""
        sizes = zip(self.padded, self.extent, self.stride, strict=True)
        return _pair((padded - extent) // stride + 1 for padded, extent, stride in sizes)

    @property
    def inside(self) -> tuple[slice, slice, slice]:
        """Where the image is in padded images (rows, height, width)."""
        (top, left), (height, width) = self.before, self.image
        return slice(None), slice(top, top + height), slice(left, left + width)

    @property
    def ends(self) -> Ends:
        """The first and the last place in time of each window, less the margin: a sequence has the windows between its
        own two ends, and if more is appended to it, those that are not wholly within it are no windows of its.
        """
        first = np.arange(self.output[0]) * self.stride[0]
        return _in_order(first, first + self.extent[0] - 1 - self.before[0] - self.after[0])

    @property
    def sources(self) -> Ends:
        """The same of a transposed layer: for each place that it makes, the first and the last of the places that it
        makes them of.
        """
        size, count, stride = self.image[0], self.output[0], self.stride[0]
        made = np.arange(size)
        return _in_order(np.minimum(made // stride, count - 1), count - 1 - (size - 1 - made) // stride)

    def turned(self) -> "Windows":
        """Those that lead back from the outputs to the image, for a stride of 1."""
        before = _pair(extent - 1 - before for extent, before in zip(self.extent, self.before, strict=True))
        after = _pair(extent - 1 - after for extent, after in zip(self.extent, self.after, strict=True))
        return Windows(self.output, self.kernel, (1, 1), self.dilation, before, after)

    def places(self, row: int, column: int) -> tuple[slice, slice, slice]:
        """Where in padded images (rows, height, width) an element of the kernel lies, in all windows at once."""
        return slice(None), self._slice(0, row), self._slice(1, column)

    def along(self, axis: int, element: int) -> tuple[slice, ...]:
        """Where along one axis of images (rows, height, width) an element of the kernel lies, in all windows."""
        return (*(slice(None),) * (axis + 1), self._slice(axis, element))

    def _slice(self, axis: int, element: int) -> slice:
        start, stride = element * self.dilation[axis], self.stride[axis]
        return slice(start, start + (self.output[axis] - 1) * stride + 1, stride)


@dataclass(frozen=True)
class Steps:
    """What a layer says of its windows, whatever image they are laid over."""

    kind: str
    """The layer's, for what is raised."""
    kernel: Pair
    stride: Pair
    dilation: Pair
    padding: Padding
    margin: Pair
    """Zeros on either side, with padding VALID."""
    kernel_field: str
    """Which of the layer's fields the kernel is, for what is raised."""

    @property
    def extent(self) -> Pair:
        """How far a kernel reaches."""
        return _pair(apart * (size - 1) + 1 for size, apart in zip(self.kernel, self.dilation, strict=True))

    def over(self, input_shape: Shape) -> Windows:
        """The windows over a row. Raises InvalidValue if there is room for none."""
        windows = self._over(as_image(input_shape))
        for axis, (extent, size) in enumerate(zip(self.extent, windows.padded, strict=True)):
            if extent > size:
                fits = (size - 1) // self.dilation[axis] + 1
                raise InvalidValue(
                    self.kernel_field,
                    f"is {self.kernel[axis]}, which reaches over {extent} places, but the rows of shape {input_shape} "
                    f"that reach it have {size}, padding included; must be at most {fits}, or use padding SAME, or "
                    "shrink less before",
                )
        return windows

    def under(self, outputs: Pair) -> Windows:
        """The windows over the image that a transposed layer makes of so many places: one for each of these.

        Raises InvalidValue if there is no such image.
        """
        every = zip(outputs, self.stride, self.extent, self.margin, strict=True)
        if self.padding is Padding.SAME:
            image = _pair(count * stride for count, stride, _, _ in every)
        else:
            image = _pair((count - 1) * stride + extent - 2 * margin for count, stride, extent, margin in every)
        if min(image) < 1:
            places = outputs[0] if image[0] < 1 else outputs[1]
            raise InvalidValue(
                "padding_size", f"would leave nothing of the {places} places that reach it; use a smaller one"
            )
        return self._over(image)

    def _over(self, image: Pair) -> Windows:
        margins = [self._margins(axis, size) for axis, size in enumerate(image)]
        before, after = _pair(front for front, _ in margins), _pair(behind for _, behind in margins)
        return Windows(image, self.kernel, self.stride, self.dilation, before, after)

    def _margins(self, axis: int, size: int) -> Pair:
        """Zeros in front and behind along an axis."""
        if self.padding is Padding.VALID:
            return self.margin[axis], self.margin[axis]
        stride = self.stride[axis]
        total = max((-(-size // stride) - 1) * stride + self.extent[axis] - size, 0)
        return total // 2, total - total // 2


def steps(
    kind: str,
    axes: int,
    kernel: Shape,
    stride: Shape,
    dilation: Shape,
    padding: Padding,
    margin: Shape,
    kernel_field: str = "kernel_size",
) -> Steps:
    """Reads fields of one number for all axes, or one for each. Raises InvalidValue, naming the field."""
    found = Steps(
        kind,
        _each(kernel_field, kernel, axes, 1),
        _each("stride", stride, axes, 1),
        _each("dilation", dilation, axes, 1),
        padding,
        _each("padding_size", margin or (0,), axes, 0),
        kernel_field,
    )
    if margin and padding is not Padding.VALID:
        raise InvalidValue("padding_size", "is given beside padding SAME, which is another answer; give one")
    for extent, zeros in zip(found.extent, found.margin, strict=True):
        if zeros >= extent:
            raise InvalidValue(
                "padding_size", f"is {zeros}; must be less than the {extent} places that the kernel reaches over"
            )
    return found


def check_places(kind: str, axes: int, input_shape: Shape) -> None:
    """Raises ValueError, saying what would fit, if rows are not the sequences or images that a layer takes."""
    wanted = {1: "(time, channels)", 2: "(height, width, channels)"}[axes]
    if len(input_shape) == axes:
        shape = (*input_shape, 1)
        raise ValueError(
            f"{kind} takes rows of shape {wanted}, but rows of shape {input_shape} reach it; "
            f"if they are without an axis of channels, put a reshape to {shape} first"
        )
    if len(input_shape) != axes + 1 or min(input_shape) < 1:
        raise ValueError(f"{kind} takes rows of shape {wanted}, none 0, but rows of shape {input_shape} reach it")


def check_size(kind: str, windows: Windows, channels: int, elements: int) -> None:
    """Raises ValueError if an image with its padding, or the patches of one line of it, would be too large to hold."""
    held = max(math.prod(windows.padded) * channels, windows.output[1] * elements)
    if held > LARGEST_IMAGE:
        raise ValueError(
            f"{kind} needs {held:,} numbers at once for a single row; must be at most {LARGEST_IMAGE:,}: "
            "use a smaller kernel, less padding or smaller rows"
        )


def as_image(input_shape: Shape) -> Pair:
    """(height, width) of rows that are sequences, (time, channels), or images, (height, width, channels)."""
    return (input_shape[0], 1) if len(input_shape) == 2 else (input_shape[0], input_shape[1])


def images(x: Array) -> Array:
    """x as (rows, height, width, channels)."""
    return x.reshape(len(x), *as_image(x.shape[1:]), x.shape[-1])


def within(mask: Array, ends: Ends) -> Array:
    """Where both ends are not padded: (rows, windows), of a mask (rows, time)."""
    first, last = ends
    found: Array = mask[:, first] & mask[:, last]
    return found


def _in_order(first: Array, last: Array) -> Ends:
    """Only the last end where, for the margin, it comes before the first."""
    last = np.maximum(last, 0)
    return np.minimum(first, last), last


def _each(field: str, values: Shape, axes: int, least: int) -> Pair:
    """A number for each axis; along the width of a sequence, the one that changes nothing."""
    if len(values) not in (1, axes):
        wanted = "one number" if axes == 1 else "one number, or two: along height and width"
        raise InvalidValue(field, f"has {len(values)} numbers; must have {wanted}")
    for value in values:
        if not least <= value <= LARGEST_KERNEL:
            raise InvalidValue(field, f"is {value}; must be {least} to {LARGEST_KERNEL:,}")
    return (values[0], least) if axes == 1 else (values[0], values[-1])


def _pair(values: Iterable[int]) -> Pair:
    first, second = values
    return first, second
