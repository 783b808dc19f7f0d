"""How each layer is written as ONNX operators: a function and a row of EXPORTERS; or a reason in NOT_EXPORTED.

What is written is the prediction, so that what is for training alone leaves no trace.
"""

import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from service.errors import FailedPrecondition
from service.models.onnx import attention, convolution, elementwise, normalization, recurrent
from service.models.onnx.graph import Exporter, Graph, Place
from service.models.onnx.quantum import quantum
from worker import layers as of
from worker.arrays import Shape
from worker.layers import LAYERS, Layer, Params, Residual
from worker.layers.stack import part, parts


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


def _dense(graph: Graph, place: Place, x: str) -> str:
    graph.mask = graph.mask_of(place)
    product = graph.node("MatMul", x, graph.parameter(place, "weight"))
    return graph.node("Add", product, graph.parameter(place, "bias"))


def _residual(graph: Graph, place: Place, x: str) -> str:
    layer: Residual = place.layer
    ways = [
        (layers, part(place.params, name), f"{place.name}.{name}")
        for name, layers in (("layers", layer.layers), ("projection", layer.projection))
    ]
    return graph.by_number("Add", *_ways(graph, place, ways, x))


def _concatenate(graph: Graph, place: Place, x: str) -> str:
    branches = place.layer.branches
    ways = [
        (branch.layers, own, f"{place.name}.{index}")
        for index, (branch, own) in enumerate(zip(branches, parts(place.params, len(branches)), strict=True))
    ]
    ends = _ways(graph, place, ways, x)
    if len(place.output_shape) == 1:
        graph.mask = ""
    return graph.node("Concat", *ends, axis=-1)


def _ways(graph: Graph, place: Place, ways: Sequence[tuple[Sequence[Layer], Params, str]], x: str) -> list[str]:
    """Writes several ways from x on. What comes of them is padded where it is on one of them."""
    before, masks, ends = graph.mask, set[str](), []
    for layers, params, name in ways:
        graph.mask = before
        ends.append(emit_all(graph, layers, params, place.input_shape, name, x))
        masks.add(graph.mask)
    graph.mask = functools.reduce(lambda one, other: graph.node("And", one, other), sorted(masks - {""}) or [""])
    return ends


EXPORTERS: Mapping[type[Layer], Exporter] = MappingProxyType(
    {
        of.Dense: _dense,
        of.Residual: _residual,
        of.Concatenate: _concatenate,
        of.Dropout: elementwise.same,
        of.GaussianNoise: elementwise.same,
        of.GaussianLatent: elementwise.means,
        of.ReLU: elementwise.relu,
        of.LeakyReLU: elementwise.leaky_relu,
        of.ELU: elementwise.elu,
        of.GELU: elementwise.gelu,
        of.Tanh: elementwise.tanh,
        of.Sigmoid: elementwise.sigmoid,
        of.SiLU: elementwise.silu,
        of.Softplus: elementwise.softplus,
        of.Softmax: elementwise.softmax,
        of.Flatten: elementwise.reshaped,
        of.Reshape: elementwise.reshaped,
        of.Rescale: elementwise.rescaled,
        of.BatchNorm: normalization.batch_norm,
        of.LayerNorm: normalization.layer_norm,
        of.GroupNorm: normalization.group_norm,
        of.Conv1d: convolution.convolution,
        of.Conv2d: convolution.convolution,
        of.Conv1dTranspose: convolution.transposed,
        of.Conv2dTranspose: convolution.transposed,
        of.Pool1d: convolution.pool,
        of.Pool2d: convolution.pool,
        of.GlobalPool: convolution.global_pool,
        of.SimpleRnn: recurrent.simple_rnn,
        of.Lstm: recurrent.lstm,
        of.Gru: recurrent.gru,
        of.MultiHeadAttention: attention.attention,
        of.PositionalEncoding: attention.positional_encoding,
        of.Embedding: attention.embedding,
        of.Quantum: quantum,
    }
)

NOT_EXPORTED: Mapping[type[Layer], str] = MappingProxyType({})
"""The layers that can't be written, each with the reason, which is what a user is told."""
