"""A network: layers over one flat vector.

Run the layers forward, then their closures in reverse: that is all of backpropagation. The parameters of all layers lie
one behind the other in a single vector, and so do the gradients, so that exchanging, averaging and stepping never need
to know what a layer is.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from worker.arrays import Array, Shape
from worker.errors import ShapeMismatch
from worker.initializers import initialize
from worker.layers import Context, Layer, Parameter, Params
from worker.seeds import Purpose, generator

MOST_SEEN = 16


@dataclass(frozen=True)
class Slot:
    """Where a parameter lies in the flat vector."""

    layer: int
    key: str
    parameter: Parameter
    offset: int

    @property
    def name(self) -> str:
        """As in model files: "layers.0.weight"."""
        return f"layers.{self.layer}.{self.key}"

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.parameter.shape)

    def view(self, vector: Array) -> Array:
        """The parameter's part of the vector, in its own shape, without a copy."""
        return vector[self.offset : self.offset + self.size].reshape(self.parameter.shape)


@dataclass(frozen=True)
class Network:
    """Layers, and the shape of the rows that enter the first one."""

    layers: tuple[Layer, ...]
    input_shape: Shape

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """The shape of a row before each layer, and after the last. Raises ShapeMismatch."""
        shapes = [self.input_shape]
        for index, layer in enumerate(self.layers):
            try:
                shapes.append(layer.output_shape(shapes[-1]))
            except ValueError as error:
                raise ShapeMismatch(index, str(error)) from error
        return tuple(shapes)

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """Where each parameter lies, in layer order."""
        slots: list[Slot] = []
        offset = 0
        for index, (layer, shape) in enumerate(zip(self.layers, self.shapes, strict=False)):
            for key, parameter in layer.parameters(shape).items():
                slots.append(Slot(index, key, parameter, offset))
                offset += slots[-1].size
        return tuple(slots)

    @property
    def output_shape(self) -> Shape:
        """The shape of a row after the last layer."""
        return self.shapes[-1]

    @property
    def size(self) -> int:
        """How many parameters there are."""
        return self.slots[-1].offset + self.slots[-1].size if self.slots else 0

    def __reduce__(self) -> tuple[type["Network"], tuple[tuple[Layer, ...], Shape]]:
        return Network, (self.layers, self.input_shape)  # without the vectors that were seen

    @cached_property
    def _seen(self) -> dict[int, tuple[Array, list[Params]]]:
        return {}

    def views(self, vector: Array) -> list[Params]:
        """For each layer its part of the vector, by parameter name.

        Those of the last few vectors are kept: a worker is given the same ones step after step.
        """
        seen = self._seen.get(id(vector))
        if seen is None or seen[0] is not vector:
            if len(self._seen) >= MOST_SEEN:
                self._seen.clear()
            seen = self._seen[id(vector)] = (vector, self._views(vector))
        return seen[1]

    def _views(self, vector: Array) -> list[Params]:
        views: list[dict[str, Array]] = [{} for _ in self.layers]
        for slot in self.slots:
            views[slot.layer][slot.key] = slot.view(vector)
        return list(views)

    def initial(self, seed: int, dtype: type = np.float32) -> Array:
        """The parameters before the first step, (size,)."""
        vector: Array = np.empty(self.size, dtype)
        for number, slot in enumerate(self.slots):
            rng = generator(seed, Purpose.PARAMETERS, number)
            of = slot.parameter
            slot.view(vector)[...] = initialize(of.initializer, rng, of.shape, of.fan_in, of.fan_out)
        return vector

    def forward(self, vector: Array, x: Array) -> tuple[Array, Callable[[Array, Array], None]]:
        """The outputs for x (rows, *input_shape), and `backward(dy, gradient)`, which fills the flat `gradient`."""
        backwards = []
        for index, (layer, params) in enumerate(zip(self.layers, self.views(vector), strict=True)):
            x, backward = layer.forward(params, x, Context(input_gradient=index > 0))
            backwards.append(backward)

        def backward_through_all(dy: Array, gradient: Array) -> None:
            for backward, grads in zip(reversed(backwards), reversed(self.views(gradient)), strict=True):
                dy = backward(dy, grads)

        return x, backward_through_all
