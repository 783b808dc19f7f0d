"""How each layer is written as ONNX operators: a function and a row of EXPORTERS; or a reason in NOT_EXPORTED.

A function adds nodes to the graph and returns the name of its output. It gets the name of its input, whose first axis
is the row. What is written is the prediction, so that what is for training alone leaves no trace.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

from service.errors import FailedPrecondition
from service.models.onnx.graph import Graph, Place
from worker.arrays import Shape
from worker.layers import (
    LAYERS,
    Concatenate,
    Dense,
    Dropout,
    Layer,
    Params,
    ReLU,
    Residual,
    Sigmoid,
    Tanh,
)
from worker.layers.stack import part, parts

Exporter: TypeAlias = Callable[[Graph, Place, str], str]


def emit(graph: Graph, place: Place, x: str) -> str:
    """Writes a layer. Raises FailedPrecondition if it can't be written."""
    exporter = EXPORTERS.get(type(place.layer))
    if exporter is None:
        kind = next(kind for kind, cls in LAYERS.items() if isinstance(place.layer, cls))
        raise FailedPrecondition(
            f"{place.name} ({kind}) can't be exported to ONNX: {NOT_EXPORTED[type(place.layer)]}",
            reason="NOT_EXPORTABLE",
        )
    return exporter(graph, place, x)


def emit_all(graph: Graph, layers: Sequence[Layer], params: Params, shape: Shape, name: str, x: str) -> str:
    """Writes layers one behind the other. The parameters' keys begin with the number of the layer."""
    for index, (layer, own) in enumerate(zip(layers, parts(params, len(layers)), strict=True)):
        x = emit(graph, Place(layer, own, shape, f"{name}.{index}"), x)
        shape = layer.output_shape(shape)
    return x


def operator(name: str) -> Exporter:
    """The exporter of a layer that is a single operator of one input."""
    return lambda graph, _place, x: graph.node(name, x)


def _same(_graph: Graph, _place: Place, x: str) -> str:
    """For what does nothing in prediction."""
    return x


def _dense(graph: Graph, place: Place, x: str) -> str:
    product = graph.node("MatMul", x, graph.parameter(place, "weight"))
    return graph.node("Add", product, graph.parameter(place, "bias"))


def _residual(graph: Graph, place: Place, x: str) -> str:
    layer: Residual = place.layer
    ways = [
        emit_all(graph, layers, part(place.params, name), place.input_shape, f"{place.name}.{name}", x)
        for name, layers in (("layers", layer.layers), ("projection", layer.projection))
    ]
    return graph.node("Add", *ways)


def _concatenate(graph: Graph, place: Place, x: str) -> str:
    branches = place.layer.branches
    ends = [
        emit_all(graph, branch.layers, own, place.input_shape, f"{place.name}.{index}", x)
        for index, (branch, own) in enumerate(zip(branches, parts(place.params, len(branches)), strict=True))
    ]
    return graph.node("Concat", *ends, axis=-1)


EXPORTERS: Mapping[type[Layer], Exporter] = MappingProxyType(
    {
        Dense: _dense,
        ReLU: operator("Relu"),
        Tanh: operator("Tanh"),
        Sigmoid: operator("Sigmoid"),
        Dropout: _same,
        Residual: _residual,
        Concatenate: _concatenate,
    }
)

NOT_EXPORTED: Mapping[type[Layer], str] = MappingProxyType({})
"""The layers that can't be written, each with the reason, which is what a user is told."""
