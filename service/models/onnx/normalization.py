"""Layers that normalise, as ONNX operators."""

import math

import numpy as np

from service.models.onnx.graph import Graph, Place


def batch_norm(graph: Graph, place: Place, x: str) -> str:
    """By the statistics that are kept. The operator wants features in front."""
    parameters = [graph.parameter(place, key) for key in ("scale", "shift", "mean", "variance")]
    first = graph.channels_first(x, place.input_shape)
    y = graph.node("BatchNormalization", first, *parameters, epsilon=float(place.layer.epsilon))
    return graph.blanked(place, graph.channels_last(y, place.output_shape))


def layer_norm(graph: Graph, place: Place, x: str) -> str:
    """Over the last axis."""
    scale, shift = graph.parameter(place, "scale"), graph.parameter(place, "shift")
    return graph.node("LayerNormalization", x, scale, shift, axis=-1, epsilon=float(place.layer.epsilon))


def group_norm(graph: Graph, place: Place, x: str) -> str:
    """Every group is normalised as if it were an instance of one channel, and then scaled channel by channel.

    There is an operator for groups, but until opset 21 it scales group by group. Of padded sequences the statistics are
    those of the places that are not, for which there is none.
    """
    if graph.mask_of(place):
        return _given_group_norm(graph, place, x)
    groups, (*places, channels) = place.layer.groups, place.input_shape
    by_group = graph.reshape(graph.channels_first(x, place.input_shape), groups, -1)
    ones, zeros = (graph.constant(fill(groups, np.float32)) for fill in (np.ones, np.zeros))
    normal = graph.node("InstanceNormalization", by_group, ones, zeros, epsilon=float(place.layer.epsilon))
    n = graph.channels_last(graph.reshape(normal, channels, *places), place.output_shape)
    return graph.node("Add", graph.node("Mul", n, graph.parameter(place, "scale")), graph.parameter(place, "shift"))


def _given_group_norm(graph: Graph, place: Place, x: str) -> str:
    """n = (x - mean) / sqrt(variance + epsilon), for x as (rows, time, places, groups, channels of a group)."""
    layer, (time, *places, channels) = place.layer, place.input_shape
    others = math.prod(places)
    axes = graph.integers(1, 2, 4)
    grouped = graph.reshape(x, time, others, layer.groups, channels // layer.groups)
    mask = graph.node("Unsqueeze", graph.mask_of(place), graph.integers(2, 3, 4))
    seen = graph.node("ReduceSum", graph.cast(mask, np.float32), axes)
    count = graph.node("Max", graph.node("Mul", seen, graph.number(others * channels // layer.groups)), graph.number(1))

    def mean(values: str) -> str:
        given = graph.node("Where", mask, values, graph.number(0))
        return graph.node("Div", graph.node("ReduceSum", given, axes), count)

    apart = graph.node("Sub", grouped, mean(grouped))
    variance = graph.node("Add", mean(graph.node("Mul", apart, apart)), graph.number(layer.epsilon))
    n = graph.reshape(graph.node("Div", apart, graph.node("Sqrt", variance)), time, *places, channels)
    y = graph.node("Add", graph.node("Mul", n, graph.parameter(place, "scale")), graph.parameter(place, "shift"))
    return graph.blanked(place, y)
