"""A graph of ONNX operators as it is being written: nodes and constants by name, as plain data.

Nothing here needs the onnx package, which export.py alone imports, once there is a graph to be encoded.

Some operators of ONNX want channels in front, where ours are last, and so come between two transposes. One that undoes
the one before it is not written, and an operator that acts number by number is written before a transpose, not after:
so images are transposed where they enter a run of convolutions and where they leave it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from worker.arrays import Array, Shape
from worker.layers import Params
from worker.layers.windows import Ends

Attribute: TypeAlias = int | float | str | list[int] | list[float] | list[str]

Order: TypeAlias = tuple[int, ...]
"""Which axis comes to each place."""

TYPES = {np.float32: 1, np.int32: 6, np.int64: 7, np.bool_: 9}
"""The numbers by which the standard calls types."""


@dataclass(frozen=True)
class Node:
    """One operator: what it does, the names of what goes in and of what comes out."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Attribute]


@dataclass(frozen=True)
class Place:
    """A layer where it stands in a network."""

    layer: Any
    params: Params
    """The layer's own, by key."""
    input_shape: Shape
    """Of a row that reaches it."""
    name: str
    """As in model files: "layers.0"."""

    @property
    def output_shape(self) -> Shape:
        """Of a row that leaves it."""
        shape: Shape = self.layer.output_shape(self.input_shape)
        return shape


@dataclass
class Graph:
    """Operators one after the other. Every value has a name of its own; "" stands for an input that is left out."""

    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    mask: str = ""
    """Where what comes next is not padded, (rows, time) of truth values; "" if nothing is. A layer that makes other
    places of those it was given, or none, says so here, as it does in its context when it runs."""
    _names: set[str] = field(default_factory=set)
    _turned: dict[str, tuple[str, Order]] = field(default_factory=dict)
    """Of what a transpose made, what it made it of."""

    def name(self, wanted: str) -> str:
        """A name for a value: the one that is wanted, or, where that is taken, one like it."""
        name, number = wanted, 1
        while name in self._names:
            number += 1
            name = f"{wanted}_{number}"
        self._names.add(name)
        return name

    def node(self, operator: str, *inputs: str, **attributes: Attribute) -> str:
        """Adds an operator of the standard with one output, and returns the name of that."""
        (output,) = self.node_of(1, operator, *inputs, **attributes)
        return output

    def node_of(self, outputs: int, operator: str, *inputs: str, **attributes: Attribute) -> tuple[str, ...]:
        """Adds an operator with several outputs, and returns their names."""
        names = tuple(self.name(operator.lower()) for _ in range(outputs))
        self.nodes.append(Node(operator, inputs, names, attributes))
        return names

    def by_number(self, operator: str, *inputs: str, **attributes: Attribute) -> str:
        """Adds an operator that acts number by number, on values that all have the same shape."""
        sources = [self._turned.get(x, (x, None)) for x in inputs]
        order = sources[0][1]
        if order is None or any(other != order for _, other in sources):
            return self.node(operator, *inputs, **attributes)
        return self.transpose(self.node(operator, *(source for source, _ in sources), **attributes), order)

    def transpose(self, x: str, order: Sequence[int]) -> str:
        """The value with its axes in another order, without a detour by what it was before."""
        source, before = self._turned.get(x, (x, tuple(range(len(order)))))
        whole = tuple(before[axis] for axis in order)
        if whole == tuple(range(len(order))):
            return source
        y = self.node("Transpose", source, perm=list(whole))
        self._turned[y] = source, whole
        return y

    def channels_first(self, x: str, shape: Shape) -> str:
        """(rows, channels, ...) from (rows, ..., channels), for rows of a shape with channels last."""
        last = len(shape)
        return self.transpose(x, (0, last, *range(1, last)))

    def channels_last(self, x: str, shape: Shape) -> str:
        """(rows, ..., channels) from (rows, channels, ...), for rows of a shape with channels last."""
        return self.transpose(x, (0, *range(2, len(shape) + 1), 1))

    def reshape(self, x: str, *row: int) -> str:
        """Rows of another shape; one size may be -1, for what is left."""
        return self.node("Reshape", x, self.integers(0, *row))  # 0 stands for as many rows as there are

    def cast(self, x: str, dtype: type) -> str:
        """The same numbers in another type."""
        return self.node("Cast", x, to=TYPES[dtype])

    def constant(self, value: Array, wanted: str = "constant") -> str:
        """Adds an array, and returns its name."""
        name = self.name(wanted)
        self.constants[name] = value
        return name

    def integers(self, *values: int) -> str:
        """Adds a list of integers, as operators take shapes and axes."""
        return self.constant(np.array(values, np.int64))

    def number(self, value: float) -> str:
        """Adds a single number."""
        return self.constant(np.array(value, np.float32))

    def parameter(self, place: Place, key: str) -> str:
        """Adds a layer's parameter, under its name in model files."""
        return self.constant(place.params[key], f"{place.name}.{key}")

    def mask_of(self, place: Place) -> str:
        """Where the sequences that reach a layer are not padded; "" if nothing is, or rows have no places there."""
        return self.mask if len(place.input_shape) > 1 else ""

    def blanked(self, place: Place, x: str) -> str:
        """What reaches a layer, with zeros at padded places; x itself if there are none."""
        mask = self.mask_of(place)
        if not mask:
            return x
        return self.node("Where", self.at_places(mask, place.input_shape), x, self.number(0))

    def at_places(self, mask: str, shape: Shape) -> str:
        """A mask with as many axes as rows of a shape have."""
        return self.node("Unsqueeze", mask, self.integers(*range(2, len(shape) + 1)))

    def within(self, mask: str, ends: Ends) -> str:
        """Where both ends of windows are not padded; "" for no mask."""
        if not mask:
            return ""
        return self.node("And", *(self.node("Gather", mask, self.integers(*end), axis=1) for end in ends))

    def needed(self, output: str) -> tuple[list[Node], dict[str, Array]]:
        """The nodes and constants that a value comes from: all others can be left out."""
        wanted, nodes = {output}, []
        for node in reversed(self.nodes):
            if not wanted.isdisjoint(node.outputs):
                nodes.append(node)
                wanted.update(node.inputs)
        return nodes[::-1], {name: value for name, value in self.constants.items() if name in wanted}


Exporter: TypeAlias = Callable[[Graph, Place, str], str]
"""Adds a layer's nodes for an input of that name, whose first axis is the row, and returns the name of its output."""
