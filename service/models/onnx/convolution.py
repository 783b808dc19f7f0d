"""Convolutions and pooling as ONNX operators, which want channels in front, and take sequences as well as images."""

import math

import numpy as np

from service.models.onnx.graph import Graph, Place
from worker.layers import Pooling
from worker.layers.windows import Windows


def convolution(graph: Graph, place: Place, x: str) -> str:
    """A convolution. The weight (*kernel, channels / groups, filters) becomes (filters, channels / groups, *kernel)."""
    return _convolution(graph, place, x, "Conv")


def transposed(graph: Graph, place: Place, x: str) -> str:
    """A transposed one. The weight (*kernel, filters / groups, channels) becomes (channels, filters / groups, *kernel).

    Places at the end that no window reaches have to be told: they are what is called the output's padding.
    """
    windows: Windows = place.layer.windows(place.input_shape)
    every = zip(windows.padded, windows.output, windows.stride, windows.extent, strict=True)
    beyond = [padded - (count - 1) * stride - extent for padded, count, stride, extent in every]
    return _convolution(graph, place, x, "ConvTranspose", beyond[: place.layer.axes])


def _convolution(graph: Graph, place: Place, x: str, operator: str, beyond: list[int] | None = None) -> str:
    layer, weight = place.layer, place.params["weight"]
    axes = range(weight.ndim)
    turned = graph.constant(weight.transpose(*axes[:-3:-1], *axes[:-2]), f"{place.name}.weight")
    windows: Windows = layer.windows(place.input_shape)
    first = graph.channels_first(graph.blanked(place, x), place.input_shape)
    graph.mask = graph.within(graph.mask_of(place), windows.ends if beyond is None else windows.sources)
    y = graph.node(
        operator,
        first,
        turned,
        *([graph.parameter(place, "bias")] if layer.bias else []),
        **_geometry(windows, layer.axes),
        dilations=list(windows.dilation[: layer.axes]),
        group=layer.groups,
        **({} if beyond is None else {"output_padding": beyond}),
    )
    return graph.channels_last(y, place.output_shape)


def pool(graph: Graph, place: Place, x: str) -> str:
    """The maximum or the mean of every window. What padding adds takes no part."""
    layer, shape, mask = place.layer, place.input_shape, graph.mask_of(place)
    windows: Windows = layer.windows(shape)
    geometry = _geometry(windows, layer.axes)
    operator = "MaxPool" if layer.function is Pooling.MAX else "AveragePool"

    def pooled(x: str) -> str:
        y = graph.node(operator, graph.channels_first(x, shape), **geometry)
        return graph.channels_last(y, place.output_shape)

    if not mask:
        return pooled(x)
    graph.mask = graph.within(mask, windows.ends)
    given, left = graph.at_places(mask, shape), graph.at_places(graph.mask, shape)
    others = graph.number(float(np.finfo(np.float32).min) if layer.function is Pooling.MAX else 0)
    y = pooled(graph.node("Where", given, x, others))
    if layer.function is Pooling.AVERAGE:
        every = graph.constant(np.ones((1, *shape), np.float32))
        share = pooled(graph.node("Where", given, every, others))
        y = graph.node("Div", y, graph.node("Where", left, share, graph.number(1)))
    return graph.node("Where", left, y, graph.number(0))


def _geometry(windows: Windows, axes: int) -> dict[str, list[int]]:
    return {
        "kernel_shape": list(windows.kernel[:axes]),
        "strides": list(windows.stride[:axes]),
        "pads": [*windows.before[:axes], *windows.after[:axes]],
    }


def global_pool(graph: Graph, place: Place, x: str) -> str:
    """The mean or the maximum of all places; of sequences, of those that are not padded, and 0 if there is none."""
    largest = place.layer.function is Pooling.MAX
    axes = graph.integers(*range(1, len(place.input_shape)))
    mask, graph.mask = graph.mask_of(place), ""
    if not mask:
        return graph.node("ReduceMax" if largest else "ReduceMean", x, axes, keepdims=0)
    seen = graph.at_places(mask, place.input_shape)
    count = graph.node("ReduceSum", graph.cast(seen, np.float32), axes, keepdims=0)
    if largest:
        y = graph.node("ReduceMax", graph.node("Where", seen, x, graph.number(-np.inf)), axes, keepdims=0)
        return graph.node("Where", graph.node("Greater", count, graph.number(0)), y, graph.number(0))
    total = graph.node("ReduceSum", graph.node("Where", seen, x, graph.number(0)), axes, keepdims=0)
    numbers = graph.node("Mul", count, graph.number(math.prod(place.input_shape[1:-1])))
    return graph.node("Div", total, graph.node("Max", numbers, graph.number(1)))
