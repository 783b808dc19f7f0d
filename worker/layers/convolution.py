"""Convolutions of sequences and images, and their transposes.

A sequence is an image of width 1. A transposed convolution is the input gradient of a convolution that leads the other
way, so that both are made of the same three functions.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from worker.arrays import Array, Shape
from worker.errors import InvalidValue
from worker.initializers import Initializer
from worker.layers.correlation import correlate, input_gradient, weight_gradient
from worker.layers.layer import Backward, Context, Parameter, Params, blanked
from worker.layers.windows import Padding, Steps, Windows, as_image, check_places, check_size, images, steps, within

MOST_FILTERS = 65_536
MOST_PRODUCTS = 100_000_000_000
"""Multiplications for one row: some seconds of a core."""


@dataclass(frozen=True)
class Convolution:
    """What all convolutions are told. Places are the axes of a row but for the last, its channels."""

    kind: ClassVar[str]
    axes: ClassVar[int]
    """1 for sequences, (time, channels); 2 for images, (height, width, channels)."""

    filters: int
    kernel_size: Shape = ()
    """One number for all axes, or one for each; so are stride, padding_size and dilation."""
    stride: Shape = (1,)
    padding: Padding = Padding.VALID
    padding_size: Shape = ()
    """Zeros on either side, instead of `padding`."""
    dilation: Shape = (1,)
    """How far the elements of a kernel are apart."""
    groups: int = 1
    """Channels and filters are divided into so many groups, and no filter sees another group's channels."""
    bias: bool = True
    initializer: Initializer = Initializer.GLOROT_UNIFORM

    def __post_init__(self) -> None:
        if not 1 <= self.filters <= MOST_FILTERS:
            raise InvalidValue("filters", f"is {self.filters}; must be 1 to {MOST_FILTERS:,}")
        if self.groups < 1 or self.filters % self.groups:
            raise InvalidValue("groups", f"is {self.groups}; must divide the {self.filters} filters")
        if not self.kernel_size:
            raise InvalidValue("kernel_size", "is missing; give one number for all axes, or one for each")
        if not self.stride:
            raise InvalidValue("stride", "is empty; leave it out for 1")
        self._steps()

    def _steps(self) -> Steps:
        return steps(
            self.kind, self.axes, self.kernel_size, self.stride, self.dilation, self.padding, self.padding_size
        )

    def _channels(self, input_shape: Shape) -> int:
        """The channels of a row. Raises ValueError if this layer can't take it."""
        check_places(self.kind, self.axes, input_shape)
        channels = input_shape[-1]
        if channels % self.groups:
            raise InvalidValue(
                "groups",
                f"is {self.groups}; must divide the channels, but rows of shape {input_shape}, with {channels} "
                "channels, reach it",
            )
        return channels

    def _declare(self, inputs: int, outputs: int, fan_in: int, fan_out: int) -> Mapping[str, Parameter]:
        """The weight (*kernel, inputs, outputs) and the bias (filters,)."""
        shape = (*self._steps().kernel[: self.axes], inputs, outputs)
        weight = Parameter(shape, self.initializer, fan_in=max(fan_in, 1), fan_out=max(fan_out, 1))
        return {"weight": weight} | ({"bias": Parameter((self.filters,), Initializer.ZEROS)} if self.bias else {})

    def _weight(self, params: Params) -> Array:
        """The weight for images, (kernel height, kernel width, inputs, outputs)."""
        weight = params["weight"]
        return weight if self.axes == 2 else weight[:, np.newaxis]

    def _check_cost(self, windows: Windows, channels: int, filters: int) -> None:
        """Raises ValueError if a single row would take too much memory or time."""
        elements = math.prod(windows.kernel) * channels
        check_size(self.kind, windows, channels, elements)
        products = math.prod(windows.output) * elements * filters // self.groups
        if products > MOST_PRODUCTS:
            raise ValueError(
                f"{self.kind} needs {products:,} multiplications for a single row; must be at most "
                f"{MOST_PRODUCTS:,}: use fewer filters, a smaller kernel or a larger stride"
            )


@dataclass(frozen=True)
class Direct(Convolution):
    """y[p] = b + sum over the elements k of the kernel of x[p stride + k dilation - padding] W[k].

    x is (rows, *places, channels) and 0 outside of its places, W (*kernel, channels / groups, filters), b (filters,),
    y (rows, *windows, filters). As usual the kernel isn't turned round (LeCun et al. 1998, section II). Padded places
    of sequences are 0 too, and a window that a sequence would not have without them is padded itself.
    """

    def output_shape(self, input_shape: Shape) -> Shape:
        channels = self._channels(input_shape)
        windows = self.windows(input_shape)
        self._check_cost(windows, channels, self.filters)
        return (*windows.output[: self.axes], self.filters)

    def parameters(self, input_shape: Shape) -> Mapping[str, Parameter]:
        places, channels = math.prod(self._steps().kernel), input_shape[-1] // self.groups
        return self._declare(channels, self.filters, places * channels, places * self.filters // self.groups)

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:
        windows, mask = self.windows(x.shape[1:]), context.given(x)
        context.mask = None if mask is None else within(mask, windows.ends)
        image, weight = images(blanked(x, mask)), self._weight(params)
        y = correlate(image, weight, params.get("bias"), windows, self.groups)

        def backward(dy: Array, grads: Params) -> Array:
            """dW[k] = the sum over windows of x^T dy; dx = what every window sends back, dy W[k]^T."""
            back = images(dy)
            of_weight, of_bias = weight_gradient(image, back, windows, self.groups)
            self._weight(grads)[...] = of_weight
            if self.bias:
                grads["bias"][...] = of_bias
            if not context.input_gradient:
                return dy
            return blanked(input_gradient(back, weight, windows, self.groups).reshape(x.shape), mask)

        return y.reshape(len(x), *windows.output[: self.axes], self.filters), backward

    def windows(self, input_shape: Shape) -> Windows:
        """Over a row that enters."""
        return self._steps().over(input_shape)


@dataclass(frozen=True)
class Transposed(Convolution):
    """y = b + what a convolution from y's shape to x's sends back for x (Dumoulin and Visin 2016, section 4).

    So it enlarges where that convolution shrinks: y has (n - 1) stride + reach - 2 padding_size places for n, where the
    kernel reaches over (kernel_size - 1) dilation + 1; with padding SAME, n stride. W is that convolution's, (*kernel,
    filters / groups, channels).
    """

    def output_shape(self, input_shape: Shape) -> Shape:
        channels = self._channels(input_shape)
        windows = self.windows(input_shape)
        self._check_cost(windows, self.filters, channels)
        return (*windows.image[: self.axes], self.filters)

    def parameters(self, input_shape: Shape) -> Mapping[str, Parameter]:
        (*_, channels), of = input_shape, self._steps()
        places, moves = math.prod(of.kernel), math.prod(of.stride)
        # Of the windows that a place of y lies in, a stride leaves one in so many.
        fan_in = places * channels // self.groups // moves
        return self._declare(self.filters // self.groups, channels, fan_in, places * self.filters // self.groups)

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:
        windows, mask = self.windows(x.shape[1:]), context.given(x)
        context.mask = None if mask is None else within(mask, windows.sources)
        image, weight = images(blanked(x, mask)), self._weight(params)
        y = input_gradient(image, weight, windows, self.groups)
        if self.bias:
            y += params["bias"]

        def backward(dy: Array, grads: Params) -> Array:
            """The convolution's own: dW with x and dy in each other's place; dx = dy convolved."""
            back = images(dy)
            self._weight(grads)[...], _ = weight_gradient(back, image, windows, self.groups)
            if self.bias:
                flat = dy.reshape(-1, self.filters)
                np.matmul(np.ones(len(flat), dy.dtype), flat, out=grads["bias"])  # a sum over rows, but faster
            if not context.input_gradient:
                return dy
            return blanked(correlate(back, weight, None, windows, self.groups).reshape(x.shape), mask)

        return y.reshape(len(x), *windows.image[: self.axes], self.filters), backward

    def windows(self, input_shape: Shape) -> Windows:
        """Over the row that leaves: one for each place of the row that enters."""
        return self._steps().under(as_image(input_shape))


@dataclass(frozen=True)
class Conv1d(Direct):
    """A convolution of sequences, (rows, time, channels)."""

    kind, axes = "conv1d", 1


@dataclass(frozen=True)
class Conv2d(Direct):
    """A convolution of images, (rows, height, width, channels)."""

    kind, axes = "conv2d", 2


@dataclass(frozen=True)
class Conv1dTranspose(Transposed):
    """A transposed convolution of sequences, (rows, time, channels)."""

    kind, axes = "conv1d_transpose", 1


@dataclass(frozen=True)
class Conv2dTranspose(Transposed):
    """A transposed convolution of images, (rows, height, width, channels)."""

    kind, axes = "conv2d_transpose", 2
