"""A network: layers over one flat vector.

The parameters of all layers lie one behind the other in a single vector, and so do the gradients, so that exchanging,
averaging and stepping never need to know what a layer is. What is learned comes first, what is merely kept (running
statistics) last.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from worker.arrays import Array, Shape
from worker.initializers import initialize
from worker.layers import Context, Draw, Layer, Parameter, Params
from worker.layers.stack import run, shapes
from worker.seeds import Purpose, generator


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
    padding: float | None = None
    """For sequences of different lengths: a place in time all of whose numbers are this is no part of its row."""

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """The shape of a row before each layer, and after the last. Raises ShapeMismatch."""
        return shapes(self.layers, self.input_shape)

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """Where each parameter lies: those that are learned in layer order, then those that are kept."""
        found = [
            (index, key, parameter)
            for index, (layer, shape) in enumerate(zip(self.layers, self.shapes, strict=False))
            for key, parameter in layer.parameters(shape).items()
        ]
        slots: list[Slot] = []
        offset = 0
        for index, key, parameter in sorted(found, key=lambda each: each[2].kept):
            slots.append(Slot(index, key, parameter, offset))
            offset += slots[-1].size
        return tuple(slots)

    @property
    def output_shape(self) -> Shape:
        """The shape of a row after the last layer."""
        return self.shapes[-1]

    @cached_property
    def size(self) -> int:
        """How many parameters there are, learned and kept."""
        return sum(slot.size for slot in self.slots)

    @cached_property
    def learned(self) -> int:
        """How many parameters are learned: they come first in the flat vector."""
        return sum(slot.size for slot in self.slots if not slot.parameter.kept)

    def __reduce__(self) -> tuple[type["Network"], tuple[tuple[Layer, ...], Shape, float | None]]:
        return Network, (self.layers, self.input_shape, self.padding)  # without the views that are kept

    @cached_property
    def _kept(self) -> dict[int, tuple[Array, list[Params]]]:
        return {}

    def keep_views(self, vectors: Iterable[Array]) -> None:
        """Keeps the views of some vectors, and with them the vectors: for those that are given step after step."""
        self._kept.update((id(vector), (vector, self._views(vector))) for vector in vectors)

    def views(self, vector: Array) -> list[Params]:
        """For each layer its part of the vector, by parameter name."""
        kept = self._kept.get(id(vector))
        return kept[1] if kept is not None else self._views(vector)

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

    def forward(
        self, vector: Array, x: Array, draw: Draw | None = None
    ) -> tuple[Array, float, Callable[[Array, Array], None]]:
        """One pass over x (rows, *input_shape), to train if there is a `draw`, else to predict.

        Returns the outputs, what the layers add to the summed loss, and `backward(dy, gradient)`, which fills the flat
        `gradient`.
        """
        context = Context(input_gradient=False, draw=draw, mask=self._mask(x))
        y, backwards = run(self.layers, self.views(vector), x, context)

        def backward(dy: Array, gradient: Array) -> None:
            for back, grads in zip(reversed(backwards), reversed(self.views(gradient)), strict=True):
                dy = back(dy, grads)

        return y, sum(context.penalties), backward

    def _mask(self, x: Array) -> Array | None:
        """Where the rows of x (rows, time, ...) are not padded, (rows, time)."""
        if self.padding is None:
            return None
        given: Array = np.not_equal(x, self.padding)
        mask: Array = np.any(given, axis=tuple(range(2, x.ndim)))
        return mask
