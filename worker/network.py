"""A network: layers over one flat vector.

The parameters of all layers lie one behind the other in a single vector, and so do the gradients, so that exchanging,
averaging and stepping never need to know what a layer is. What is learned comes first, then what is merely kept
(running statistics). Tables are last: they have no place in the vector of a gradient, which has their used rows beside.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from worker.arrays import Array, Shape
from worker.feedback import CreditAssignment, draw_feedback, feedback_shapes
from worker.initializers import initialize
from worker.layers import Backward, Context, Draw, Layer, Observer, Parameter, Params, leaves
from worker.layers.stack import shapes
from worker.outlook import Outlook, outlooks
from worker.seeds import Purpose, generator
from worker.tables import Collector, TableGradient, TableRoom


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
class Traits:
    """How a layer takes part in the training, apart from what it computes."""

    name: str = ""
    """What it is called, so that it can be found in another network; "" for a layer without a name."""
    frozen: bool = False
    """Whether it stays as it is: it computes as in prediction, and neither learns nor follows what it sees."""
    learning_rate_scale: float = 1.0
    """What the learning rate is multiplied by for its parameters."""
    fresh: bool = False
    """Whether it starts anew in a job that starts from a model."""


@dataclass(frozen=True)
class Segment:
    """A stretch of the flat vector that changes in the same way throughout."""

    start: int
    stop: int
    scale: float = 1.0
    """What the learning rate is multiplied by."""
    kept: bool = False


@dataclass(frozen=True)
class Table:
    """A table that changes row by row, apart from the vector."""

    slot: Slot
    scale: float = 1.0
    """What the learning rate is multiplied by."""


class Pass(NamedTuple):
    """What a pass forward through a network gives."""

    outputs: Array
    """(rows, ...)"""
    penalty: float
    """What the layers add to the summed loss."""
    backward: Callable[[Array, Array], tuple[TableGradient, ...]]
    """`backward(dy, gradient)` fills the flat `gradient` (dense,), with zeros where layers are frozen, and returns
    those of the tables."""
    weights: Array | None
    """How much each row of the outputs counts, (rows,), or each place, (rows, time), 0 where it is padded; None if all
    count 1."""


@dataclass(frozen=True)
class Network:
    """Layers, and the shape of the rows that enter the first one."""

    layers: tuple[Layer, ...]
    input_shape: Shape
    padding: float | None = None
    """For sequences of different lengths: a place in time all of whose numbers are this is no part of its row."""
    credit_assignment: CreditAssignment = CreditAssignment.BACKPROPAGATION
    """How errors come back from layer to layer while training."""
    traits: tuple[Traits, ...] = ()
    """Of each layer; or nothing, where no layer has any."""

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """The shape of a row before each layer, and after the last. Raises ShapeMismatch."""
        return shapes(self.layers, self.input_shape)

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """Where each parameter lies: those that are learned in layer order, then those that are kept, then tables."""
        found = [
            (index, key, parameter)
            for index, (layer, shape) in enumerate(zip(self.layers, self.shapes, strict=False))
            for key, parameter in layer.parameters(shape).items()
        ]
        slots: list[Slot] = []
        offset = 0
        for index, key, parameter in sorted(found, key=lambda each: (each[2].is_table, each[2].kept)):
            slots.append(Slot(index, key, parameter, offset))
            offset += slots[-1].size
        return tuple(slots)

    @cached_property
    def outlooks(self) -> Mapping[tuple[int, ...], Outlook]:
        """What a look sees, in order and by path, of the layers that have none inside; those within blocks too."""
        return outlooks(leaves(self.layers, self.input_shape))

    @property
    def output_shape(self) -> Shape:
        """The shape of a row after the last layer."""
        return self.shapes[-1]

    @cached_property
    def size(self) -> int:
        """How many parameters there are, learned and kept, tables included."""
        return sum(slot.size for slot in self.slots)

    @cached_property
    def dense(self) -> int:
        """How many parameters are not in tables: as long is the vector of a gradient."""
        return sum(slot.size for slot in self.slots if not slot.parameter.is_table)

    @cached_property
    def tables(self) -> tuple[Table, ...]:
        """The tables that change, in the order of a gradient's tables."""
        return tuple(
            Table(slot, self.traits_of(slot.layer).learning_rate_scale)
            for slot in self.slots
            if slot.parameter.is_table and not self.traits_of(slot.layer).frozen
        )

    def rooms(self, rows: int) -> tuple[TableRoom, ...]:
        """How large the tables are, and what a gradient of up to so many rows of data can have of them."""
        return tuple(
            TableRoom(vocabulary, size, min(vocabulary, rows * table.slot.parameter.lookups))
            for table in self.tables
            for vocabulary, size in (table.slot.parameter.shape,)
        )

    @cached_property
    def learned(self) -> int:
        """How many parameters are learned, tables aside: they come first in the flat vector."""
        return sum(slot.size for slot in self.slots if not (slot.parameter.kept or slot.parameter.is_table))

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """What of a gradient's vector changes, in its order: all but the parameters of frozen layers."""
        segments: list[Segment] = []
        for slot in self.slots:
            traits, kept = self.traits_of(slot.layer), slot.parameter.kept
            if traits.frozen or slot.parameter.is_table or not slot.size:
                continue
            scale = 1.0 if kept else traits.learning_rate_scale
            start = slot.offset
            if segments and (segments[-1].stop, segments[-1].scale, segments[-1].kept) == (start, scale, kept):
                start = segments.pop().start
            segments.append(Segment(start, slot.offset + slot.size, scale, kept))
        return tuple(segments)

    @property
    def learns(self) -> bool:
        """Whether there is anything to learn."""
        return bool(self.tables) or any(not segment.kept for segment in self.segments)

    def traits_of(self, layer: int) -> Traits:
        """How a layer takes part in the training."""
        return self.traits[layer] if self.traits else Traits()

    @cached_property
    def _frozen(self) -> tuple[slice, ...]:
        """The places of a gradient's vector that don't change."""
        ends = [0, *(end for segment in self.segments for end in (segment.start, segment.stop)), self.dense]
        return tuple(slice(start, stop) for start, stop in zip(ends[::2], ends[1::2], strict=True) if start < stop)

    @cached_property
    def feedback_shapes(self) -> Mapping[int, Shape]:
        """The shapes of the random matrices by which errors come back, by layer. Raises ShapeMismatch."""
        return feedback_shapes(self.credit_assignment, self.layers, self.shapes)

    def __reduce__(self) -> tuple[type["Network"], tuple[Any, ...]]:
        # Without what is kept at hand: views, and random matrices.
        return Network, (self.layers, self.input_shape, self.padding, self.credit_assignment, self.traits)

    @cached_property
    def _kept(self) -> dict[int, tuple[Array, list[Params]]]:
        return {}

    def keep_views(self, vectors: Iterable[Array]) -> None:
        """Keeps the views of some vectors, and with them the vectors: for those that are given step after step."""
        self._kept.update((id(vector), (vector, self._views(vector))) for vector in vectors)

    def views(self, vector: Array) -> list[Params]:
        """For each layer its part of the vector, by parameter name; without tables if it is that of a gradient."""
        kept = self._kept.get(id(vector))
        return kept[1] if kept is not None else self._views(vector)

    def _views(self, vector: Array) -> list[Params]:
        views: list[dict[str, Array]] = [{} for _ in self.layers]
        for slot in self.slots:
            if len(vector) == self.size or not slot.parameter.is_table:
                views[slot.layer][slot.key] = slot.view(vector)
        return list(views)

    def initial(self, seed: int, dtype: npt.DTypeLike = np.float32) -> Array:
        """The parameters before the first step, (size,)."""
        vector: Array = np.empty(self.size, dtype)
        for number, slot in enumerate(self.slots):
            rng = generator(seed, Purpose.PARAMETERS, number)
            of = slot.parameter
            slot.view(vector)[...] = initialize(of.initializer, rng, of.shape, of.fan_in, of.fan_out)
        return vector

    def forward(
        self,
        vector: Array,
        x: Array,
        draw: Draw | None = None,
        weights: Array | None = None,
        observe: Observer | None = None,
    ) -> Pass:
        """One pass over x (rows, *input_shape), to train if there is a `draw`, else to predict.

        Rows count as `weights` (rows,) say in what layers add to the loss, or else 1 each. What comes out of each layer
        is shown to `observe`, if that is given.

        The backward ends at the first layer that changes, so that frozen layers in front cost none.
        """
        context = Context(input_gradient=False, draw=draw, mask=self._mask(x), weights=weights, observe=observe)
        differently = draw is not None and self.credit_assignment is not CreditAssignment.BACKPROPAGATION
        feedback = self._feedback(draw.seed, vector.dtype) if draw and differently else {}
        backwards: list[Backward] = []
        for index, (layer, own) in enumerate(zip(self.layers, self.views(vector), strict=True)):
            is_needed = index > self._first and index not in feedback
            inside = self._inside(context, index, is_needed)
            x, back = layer.forward(own, x, inside)
            context.mask = inside.mask
            if observe is not None:
                observe((index,), x, context.mask)
            backwards.append(back)
        direct = self.credit_assignment is CreditAssignment.DIRECT_FEEDBACK_ALIGNMENT

        def backward(dy: Array, gradient: Array) -> tuple[TableGradient, ...]:
            error, grads = dy, list(self.views(gradient))
            collectors = [Collector() for _ in self.tables]
            for table, collector in zip(self.tables, collectors, strict=True):
                grads[table.slot.layer] = {**grads[table.slot.layer], table.slot.key: cast("Array", collector)}
            for index in range(len(self.layers) - 1, self._first - 1, -1):
                dx = backwards[index](dy, grads[index])
                if index in feedback:
                    source = (error if direct else dy).reshape(-1, len(feedback[index]))
                    dx = (source @ feedback[index]).reshape(-1, *self.shapes[index])
                dy = dx
            for part in self._frozen:
                gradient[part] = 0
            return tuple(collector.get() for collector in collectors)

        return Pass(x, sum(context.penalties), backward, context.counts(x))

    def _inside(self, context: Context, index: int, input_gradient: bool) -> Context:
        """The context of a layer. A frozen one predicts while the others train."""
        inside = context.inside(index, input_gradient=input_gradient)
        if self.traits and self.traits[index].frozen:
            inside.draw, inside.parameter_gradient = None, False
        return inside

    @cached_property
    def _first(self) -> int:
        """The first layer with parameters that change, where the backward ends; the number of layers if none has."""
        changing = (slot.layer for slot in self.slots if not self.traits_of(slot.layer).frozen)
        return min(changing, default=len(self.layers))

    def _feedback(self, seed: int, dtype: np.dtype[np.floating]) -> Mapping[int, Array]:
        """The random matrices, drawn once and then kept at hand."""
        if (seed, dtype) not in self._drawn:
            self._drawn[seed, dtype] = draw_feedback(self.feedback_shapes, seed, dtype)
        return self._drawn[seed, dtype]

    @cached_property
    def _drawn(self) -> dict[tuple[int, np.dtype[np.floating]], Mapping[int, Array]]:
        return {}

    def _mask(self, x: Array) -> Array | None:
        """Where the rows of x (rows, time, ...) are not padded, (rows, time)."""
        if self.padding is None or x.ndim < 2:
            return None
        given: Array = np.not_equal(x, self.padding)
        mask: Array = np.any(given, axis=tuple(range(2, x.ndim)))
        return mask
