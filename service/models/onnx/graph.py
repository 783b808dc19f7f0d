"""A graph of ONNX operators as it is being written: nodes and constants by name, as plain data.

Nothing here needs the onnx package, which export.py alone imports, once there is a graph to be encoded.
"""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from worker.arrays import Array, Shape
from worker.layers import Params

Attribute: TypeAlias = int | float | str | list[int] | list[float] | list[str]


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


@dataclass
class Graph:
    """Operators one after the other. Every value has a name of its own; "" stands for an input that is left out."""

    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)

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

    def constant(self, value: Array, wanted: str = "constant") -> str:
        """Adds an array, and returns its name."""
        name = self.name(wanted)
        self.constants[name] = value
        return name

    def integers(self, *values: int) -> str:
        """Adds a list of integers, as operators take shapes and axes."""
        return self.constant(np.array(values, np.int64))

    def parameter(self, place: Place, key: str) -> str:
        """Adds a layer's parameter, under its name in model files."""
        return self.constant(place.params[key], f"{place.name}.{key}")
