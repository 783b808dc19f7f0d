"""Activations, noise, and the same numbers in another shape or of another size, as ONNX operators."""

import numpy as np

from service.models.onnx.graph import Attribute, Graph, Place
from worker.layers import Flatten


def same(_graph: Graph, _place: Place, x: str) -> str:
    """For what does nothing in prediction."""
    return x


def relu(graph: Graph, _place: Place, x: str) -> str:
    """max(x, 0)."""
    return graph.by_number("Relu", x)


def leaky_relu(graph: Graph, place: Place, x: str) -> str:
    """x, or slope x below zero."""
    return graph.by_number("LeakyRelu", x, alpha=float(place.layer.slope))


def elu(graph: Graph, place: Place, x: str) -> str:
    """x, or alpha (exp(x) - 1) below zero."""
    return graph.by_number("Elu", x, alpha=float(place.layer.alpha))


def gelu(graph: Graph, place: Place, x: str) -> str:
    """x times the normal distribution's share below x, or about that."""
    approximate: Attribute = "tanh" if place.layer.approximate else "none"
    return graph.by_number("Gelu", x, approximate=approximate)


def tanh(graph: Graph, _place: Place, x: str) -> str:
    """tanh(x)."""
    return graph.by_number("Tanh", x)


def sigmoid(graph: Graph, _place: Place, x: str) -> str:
    """1 / (1 + exp(-x))."""
    return graph.by_number("Sigmoid", x)


def silu(graph: Graph, _place: Place, x: str) -> str:
    """x / (1 + exp(-x))."""
    return graph.by_number("Mul", x, graph.by_number("Sigmoid", x))


def softplus(graph: Graph, _place: Place, x: str) -> str:
    """log(1 + exp(x))."""
    return graph.by_number("Softplus", x)


def softmax(graph: Graph, _place: Place, x: str) -> str:
    """exp(x) over its sum along the last axis."""
    return graph.node("Softmax", x, axis=-1)


def means(graph: Graph, place: Place, x: str) -> str:
    """The means, which are the first half of the last axis: what a latent code is without noise."""
    graph.mask = graph.mask_of(place)
    first, n, last = graph.integers(0), graph.integers(place.output_shape[-1]), graph.integers(-1)
    return graph.node("Slice", x, first, n, last)


def reshaped(graph: Graph, place: Place, x: str) -> str:
    """The same numbers in the layer's shape."""
    shape = place.output_shape
    if len(shape) == 1 or shape[0] != place.input_shape[0] or isinstance(place.layer, Flatten):
        graph.mask = ""
    return x if shape == place.input_shape else graph.reshape(x, *shape)


def rescaled(graph: Graph, place: Place, x: str) -> str:
    """x scale + offset, for the last axis or the same for all."""
    scale, offset = (
        graph.constant(np.array(values, np.float32).reshape(() if len(values) == 1 else -1), f"{place.name}.{name}")
        for name, values in (("scale", place.layer.scale), ("offset", place.layer.offset))
    )
    return graph.node("Add", graph.node("Mul", x, scale), offset)
