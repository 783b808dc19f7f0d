"""Recurrent layers as ONNX operators, which read time first, and know how long each sequence is but of no gaps in it.

So that padded places may lie anywhere, the others are first moved together, in their order. What comes of them is then
looked up for each place: forwards, the state of the last place up to it that is not padded; backwards, of the next one.
"""

from collections.abc import Sequence

import numpy as np

from service.models.onnx.graph import Attribute, Graph, Place
from worker.arrays import Array
from worker.layers import Params, RecurrentActivation
from worker.layers.stack import part


def simple_rnn(graph: Graph, place: Place, x: str) -> str:
    """h = f(x W + h U + b)."""
    ways = _ways(place)
    bends = {RecurrentActivation.TANH: "Tanh", RecurrentActivation.RELU: "Relu"}[place.layer.activation]
    biases = [np.concatenate([own["bias"], np.zeros_like(own["bias"])]) for own in ways]
    return _recurrent(graph, place, x, "RNN", (0,), biases, activations=[bends] * len(ways))


def lstm(graph: Graph, place: Place, x: str) -> str:
    """The blocks f, i, o, g become i, o, f, g."""
    order = (1, 2, 0, 3)
    biases = []
    for own in _ways(place):
        bias = _reordered(np.concatenate([own["forget_bias"], own["bias"]]), order)
        biases.append(np.concatenate([bias, np.zeros_like(bias)]))
    return _recurrent(graph, place, x, "LSTM", order, biases)


def gru(graph: Graph, place: Place, x: str) -> str:
    """The blocks are z, r, n here and there. That the gate r acts after the product has to be said."""
    units = place.layer.units
    biases = [
        np.concatenate([own["bias"], np.zeros(2 * units, own["bias"].dtype), own["recurrent_bias"]])
        for own in _ways(place)
    ]
    return _recurrent(graph, place, x, "GRU", (0, 1, 2), biases, linear_before_reset=1)


def _ways(place: Place) -> list[Params]:
    """The parameters of each pass."""
    if place.layer.bidirectional:
        return [part(place.params, "forward"), part(place.params, "backward")]
    return [place.params]


def _reordered(blocks: Array, order: Sequence[int]) -> Array:
    """Blocks of the last axis, all of the same length, in another order."""
    return np.concatenate([np.split(blocks, len(order), axis=-1)[index] for index in order], axis=-1)


def _recurrent(
    graph: Graph,
    place: Place,
    x: str,
    operator: str,
    order: Sequence[int],
    biases: Sequence[Array],
    **attributes: Attribute,
) -> str:
    """Weights (features, gates units) become (ways, gates units, features), their blocks in the operator's order."""
    layer, ways = place.layer, _ways(place)
    weight, recurrent_weight = (
        graph.constant(np.stack([_reordered(own[key], order).T for own in ways]), f"{place.name}.{key}")
        for key in ("weight", "recurrent_weight")
    )
    bias = graph.constant(np.stack(biases), f"{place.name}.bias")
    mask = graph.mask_of(place)
    gathered = _Gathered(graph, mask, place.input_shape[0]) if mask else None
    graph.mask = mask if layer.return_sequences else ""
    states, last = graph.node_of(
        2,
        operator,
        graph.transpose(gathered.together(x) if gathered else x, (1, 0, 2)),
        weight,
        recurrent_weight,
        bias,
        gathered.lengths if gathered else "",
        hidden_size=layer.units,
        direction="bidirectional" if layer.bidirectional else "reverse" if layer.reverse else "forward",
        **attributes,
    )
    if gathered:
        backwards = (False, True) if layer.bidirectional else (layer.reverse,)
        found = [gathered.apart(states, way, back, layer.return_sequences) for way, back in enumerate(backwards)]
        y = graph.node("Concat", *found, axis=-1)
    elif layer.return_sequences:
        y = graph.transpose(states, (2, 0, 1, 3))  # of (time, ways, rows, units)
    else:
        y = graph.transpose(last, (1, 0, 2))  # of (ways, rows, units)
    return graph.reshape(y, *place.output_shape)


class _Gathered:
    """Sequences with their padded places moved to the end."""

    def __init__(self, graph: Graph, mask: str, time: int) -> None:
        self._graph, self._time = graph, time
        self._seen = graph.cast(mask, np.int64)
        self._until = graph.node("CumSum", self._seen, graph.constant(np.array(1, np.int64)))
        """How many places up to each are not padded, itself included, (rows, time)."""
        count = graph.node("ReduceSum", self._seen, graph.integers(1), keepdims=1)
        self._count = count
        at_least_one = graph.node("Max", graph.node("Squeeze", count, graph.integers(1)), graph.integers(1))
        self.lengths = graph.cast(at_least_one, np.int32)
        """Of the sequences, (rows,); 1 for one that is nothing but padding, which nobody will look up."""

    def together(self, x: str) -> str:
        """x (rows, time, features), first what is not padded: places by falling 'time if seen' - place."""
        graph, time = self._graph, self._time
        places = graph.constant(np.arange(time, dtype=np.int64))
        rank = graph.node("Sub", graph.node("Mul", self._seen, graph.integers(time)), places)
        _, order = graph.node_of(2, "TopK", rank, graph.integers(time), axis=1, largest=1, sorted=1)
        return self._picked(x, order)

    def apart(self, states: str, way: int, backwards: bool, all_places: bool) -> str:
        """The states (rows, time or 1, units) of one way, at every place or the last one read; 0 before the first."""
        graph = self._graph
        if backwards:
            index = graph.node("Sub", self._until, self._seen)
            is_there = graph.node("Less", index, self._count)
        else:
            index = graph.node("Sub", self._until, graph.integers(1))
            is_there = graph.node("GreaterOrEqual", index, graph.integers(0))
        if not all_places:
            last = graph.integers(0 if backwards else self._time - 1)
            index, is_there = (graph.node("Gather", each, last, axis=1) for each in (index, is_there))
        of_way = graph.node("Gather", states, graph.constant(np.array(way, np.int64)), axis=1)
        within = graph.node("Clip", index, *(graph.constant(np.array(at, np.int64)) for at in (0, self._time - 1)))
        found = self._picked(graph.transpose(of_way, (1, 0, 2)), within)
        return graph.node("Where", graph.node("Unsqueeze", is_there, graph.integers(-1)), found, graph.number(0))

    def _picked(self, x: str, places: str) -> str:
        """From x (rows, time, features) what is at `places` (rows, any), row by row."""
        return self._graph.node(
            "GatherND", x, self._graph.node("Unsqueeze", places, self._graph.integers(-1)), batch_dims=1
        )
