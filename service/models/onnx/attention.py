"""Layers that look things up, in a sequence or in a table, as ONNX operators."""

import math

import numpy as np

from service.models.onnx.graph import Graph, Place
from worker.layers.attention import hidden_keys
from worker.layers.positions import waves

LOWEST = float(np.finfo(np.float32).min)


def attention(graph: Graph, place: Place, x: str) -> str:
    """[Q, K, V] = x W + b,  P = softmax(Q K^T / sqrt(size)),  y = P V W' + b', head by head."""
    layer, (time, _), width = place.layer, place.input_shape, len(place.params["output_weight"])
    size = width // layer.heads
    projected = _product(graph, place, x, "weight", "bias")
    q, k, v = (
        graph.transpose(graph.reshape(block, time, layer.heads, size), order)
        for block, order in zip(
            graph.node_of(3, "Split", projected, graph.integers(width, width, width), axis=-1),
            ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)),
            strict=True,
        )
    )
    scores = graph.node("MatMul", graph.node("Mul", q, graph.number(1 / math.sqrt(size))), k)
    attended = graph.node("MatMul", _weights(graph, place, scores), v)
    side_by_side = graph.reshape(graph.transpose(attended, (0, 2, 1, 3)), time, width)
    return _product(graph, place, side_by_side, "output_weight", "output_bias")


def _product(graph: Graph, place: Place, x: str, weight: str, bias: str) -> str:
    return graph.node("Add", graph.node("MatMul", x, graph.parameter(place, weight)), graph.parameter(place, bias))


def _weights(graph: Graph, place: Place, scores: str) -> str:
    """P (rows, heads, time, time). What is hidden gets none, even where that is everything."""
    later, mask = hidden_keys(place.input_shape[0], None, causal=place.layer.causal), graph.mask_of(place)
    hidden = "" if later is None else graph.constant(later)
    if mask:
        padded = graph.node("Unsqueeze", graph.node("Not", mask), graph.integers(1, 2))
        hidden = graph.node("Or", padded, hidden) if hidden else padded
    if not hidden:
        return graph.node("Softmax", scores, axis=-1)
    weights = graph.node("Softmax", graph.node("Where", hidden, graph.number(LOWEST), scores), axis=-1)
    return graph.node("Where", hidden, graph.number(0), weights) if mask else weights


def positional_encoding(graph: Graph, place: Place, x: str) -> str:
    """x and where it is."""
    if place.layer.learned:
        return graph.node("Add", x, graph.parameter(place, "position"))
    return graph.node("Add", x, graph.constant(waves(*place.input_shape).astype(np.float32)))


def embedding(graph: Graph, place: Place, x: str) -> str:
    """W[x]. Numbers arrive as floats; whether there are such rows is for the runtime to say."""
    return graph.node("Gather", graph.parameter(place, "weight"), graph.cast(x, np.int64), axis=0)
