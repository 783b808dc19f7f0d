"""Layers that normalise, as ONNX operators."""

import numpy as np

from service.models.onnx.graph import Graph, Place


def batch_norm(graph: Graph, place: Place, x: str) -> str:
    """By the statistics that are kept. The operator wants features in front."""
    parameters = [graph.parameter(place, key) for key in ("scale", "shift", "mean", "variance")]
    first = graph.channels_first(x, place.input_shape)
    y = graph.node("BatchNormalization", first, *parameters, epsilon=float(place.layer.epsilon))
    return graph.channels_last(y, place.output_shape)


def layer_norm(graph: Graph, place: Place, x: str) -> str:
    """Over the last axis."""
    scale, shift = graph.parameter(place, "scale"), graph.parameter(place, "shift")
    return graph.node("LayerNormalization", x, scale, shift, axis=-1, epsilon=float(place.layer.epsilon))


def group_norm(graph: Graph, place: Place, x: str) -> str:
    """Every group is normalised as if it were an instance of one channel, and then scaled channel by channel.

    There is an operator for groups, but until opset 21 it scales group by group.
    """
    groups, (*places, channels) = place.layer.groups, place.input_shape
    by_group = graph.reshape(graph.channels_first(x, place.input_shape), groups, -1)
    ones, zeros = (graph.constant(fill(groups, np.float32)) for fill in (np.ones, np.zeros))
    normal = graph.node("InstanceNormalization", by_group, ones, zeros, epsilon=float(place.layer.epsilon))
    n = graph.channels_last(graph.reshape(normal, channels, *places), place.output_shape)
    return graph.node("Add", graph.node("Mul", n, graph.parameter(place, "scale")), graph.parameter(place, "shift"))
