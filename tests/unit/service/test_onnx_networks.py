"""Whole networks as ONNX files: what goes beyond single layers."""

from collections import Counter

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import FailedPrecondition
from service.models.onnx.export import export
from tests.unit.service.test_onnx import agree, run
from worker.arrays import Array, Shape
from worker.layers import (
    BatchNorm,
    Concatenate,
    Conv1d,
    Conv1dTranspose,
    Conv2d,
    Conv2dTranspose,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    GaussianLatent,
    GlobalPool,
    GroupNorm,
    Gru,
    Layer,
    LayerNorm,
    Lstm,
    MultiHeadAttention,
    Padding,
    Pool1d,
    Pool2d,
    Pooling,
    PositionalEncoding,
    ReLU,
    Rescale,
    Reshape,
    Residual,
    SiLU,
    SimpleRnn,
    Softmax,
    Stack,
    Tanh,
)
from worker.network import Network

SAME, MAX, AVERAGE = Padding.SAME, Pooling.MAX, Pooling.AVERAGE


def convolved(filters: int) -> tuple[Layer, ...]:
    return Conv2d(filters, (3,), padding=SAME), BatchNorm(), ReLU()


def transformer(features: int) -> tuple[Layer, ...]:
    around_attention = Residual((LayerNorm(), MultiHeadAttention(2), Dropout()))
    return around_attention, Residual((LayerNorm(), Dense(2 * features), SiLU(), Dense(features)))


CNN = Network(
    (
        Rescale((1 / 255,)),
        Conv2d(4, (3,)),
        ReLU(),
        Pool2d(),
        *convolved(5),
        Pool2d(AVERAGE, (2,), padding=SAME),
        Flatten(),
        Dense(3),
    ),
    (10, 9, 2),
)

RESIDUAL_CNN = Network(
    (
        *convolved(4),
        Residual((*convolved(4), Conv2d(4, (3,), padding=SAME), BatchNorm())),
        ReLU(),
        Residual((Conv2d(6, (3,), (2,), SAME), BatchNorm()), (Conv2d(6, (1,), (2,), SAME), BatchNorm())),
        ReLU(),
        GlobalPool(),
        Dense(3),
    ),
    (7, 6, 3),
)

NETWORKS = {
    "cnn": CNN,
    "residual cnn": RESIDUAL_CNN,
    "lstm classifier": Network((Lstm(5, return_sequences=True), Dropout(), Lstm(4), Dense(3), Softmax()), (6, 3)),
    "gru both ways": Network((Gru(3, bidirectional=True, return_sequences=True), GlobalPool(MAX), Dense(2)), (5, 2)),
    "transformer": Network((PositionalEncoding(), *transformer(4), *transformer(4), GlobalPool(), Dense(3)), (5, 4)),
    "convolutions of sequences": Network(
        (Conv1d(4, (3,)), GroupNorm(2), Tanh(), Pool1d(), Conv1dTranspose(2, (2,), (2,)), Lstm(3)), (9, 2)
    ),
    "variational autoencoder": Network(
        (
            Conv2d(4, (3,), (2,), SAME),
            ReLU(),
            Flatten(),
            Dense(6),
            GaussianLatent(),
            Dense(12),
            Reshape((2, 2, -1)),
            Conv2dTranspose(2, (3,), (2,), SAME),
        ),
        (4, 4, 2),
    ),
    "branches": Network(
        (Concatenate((Stack((Conv2d(2, (1,)),)), Stack((Conv2d(3, (3,), padding=SAME), ReLU())), Stack())), Flatten()),
        (3, 4, 2),
    ),
}


def somewhere(network: Network, seed: int = 0) -> Array:
    """Parameters as after some training: none is 0 or 1, and variances are above zero."""
    vector = network.initial(seed)
    rng = np.random.default_rng(seed)
    for slot in network.slots:
        if slot.key.endswith("variance"):
            slot.view(vector)[...] = rng.uniform(0.5, 2, slot.parameter.shape)
        else:
            slot.view(vector)[...] += 0.3 * rng.standard_normal(slot.parameter.shape)
    return vector


def normal(rows: int, shape: Shape) -> Array:
    return np.random.default_rng(rows).standard_normal((rows, *shape)).astype(np.float32)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_gives_the_same_outputs_elsewhere(name: str) -> None:
    network = NETWORKS[name]
    vector = somewhere(network)
    data = export(network, vector, "x")
    onnx.checker.check_model(data, full_check=True)
    for rows in (1, 7):
        agree(network, vector, data, normal(rows, network.input_shape))


def operators(network: Network) -> Counter[str]:
    """How many of each there are in a network's file."""
    graph = onnx.load_from_string(export(network, somewhere(network), "x")).graph
    made = [name for node in graph.node for name in node.output]
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    assert {tensor.name for tensor in graph.initializer} <= used
    assert len(set(made)) == len(made)
    assert all(not used.isdisjoint(node.output) for node in graph.node), "nothing is computed for nobody"
    return Counter(node.op_type for node in graph.node)


@pytest.mark.parametrize(
    ("network", "transposes"),
    [
        (CNN, 2),
        (RESIDUAL_CNN, 2),
        (Network((ReLU(), Dense(2), BatchNorm(), GroupNorm(1)), (4,)), 0),
        (Network((Conv2d(2, (1,)), Dense(3), Conv2d(2, (1,))), (3, 3, 2)), 4),
    ],
    ids=["cnn", "residual cnn", "no places", "a layer between, channels last"],
)
def test_images_are_transposed_where_they_enter_and_leave_a_run_of_convolutions(
    network: Network, transposes: int
) -> None:
    assert operators(network)["Transpose"] == transposes


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_is_written_that_nothing_needs(name: str) -> None:
    network = NETWORKS[name]
    operators(network)
    operators(Network(network.layers, network.input_shape, padding=0.0))


WITH_PADDING: dict[str, tuple[Layer, ...]] = {
    **{
        f"{cell.__name__}, {way}, {'all states' if all_states else 'the last state'}": (
            cell(3, all_states, reverse=way == "reversed", bidirectional=way == "both ways"),
        )
        for cell in (SimpleRnn, Lstm, Gru)
        for way in ("forwards", "reversed", "both ways")
        for all_states in (False, True)
    },
    "attention": (MultiHeadAttention(1),),
    "causal attention": (MultiHeadAttention(1, causal=True),),
    "average": (GlobalPool(),),
    "maximum": (GlobalPool(MAX),),
    "windows": (Conv1d(4, (2,)), GroupNorm(2), Pool1d(MAX, (2,), (1,)), BatchNorm(), GlobalPool()),
    "windows in steps": (Conv1d(3, (3,), (2,), SAME), Pool1d(AVERAGE, (2,), (1,), SAME), Lstm(2)),
    "average of windows": (Pool1d(AVERAGE, (3,), (1,), padding_size=(1,)), MultiHeadAttention(1)),
    "places made": (Conv1dTranspose(2, (3,), (2,)), Pool1d(AVERAGE), GlobalPool(MAX)),
    "residual windows": (Residual((Conv1d(2, (2,)), BatchNorm()), (Pool1d(MAX, (2,), (1,)),)), Gru(2)),
    "branches of windows": (
        Concatenate((Stack((Conv1d(2, (2,)),)), Stack((Pool1d(MAX, (2,), (1,)),)))),
        GroupNorm(1),
        GlobalPool(),
    ),
    "lines": (Reshape((5, 2, 1)), Conv2d(4, (2, 2)), GroupNorm(2), Pool2d(AVERAGE, (2, 1), (1, 1)), GlobalPool()),
    "in branches": (Concatenate((Stack((GlobalPool(),)), Stack((Residual((Gru(2),), (Lstm(2),)),)))),),
    "transformer": (PositionalEncoding(), *transformer(2), GlobalPool()),
    "stacked": (Gru(3, return_sequences=True, bidirectional=True), Lstm(2, return_sequences=True), GlobalPool(MAX)),
    "no sequences at all": (Flatten(), Dense(2)),
}

GIVEN = np.array(
    [
        [1, 1, 1, 1, 1],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 1, 1],
        [1, 0, 1, 0, 1],
        [0, 1, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 1],
    ]
)
"""Where rows are not padded: behind, in front, in between; one is nothing but padding."""


@pytest.mark.parametrize("padding", [0.0, -1.5])
@pytest.mark.parametrize("name", WITH_PADDING)
def test_padding_is_left_out_elsewhere_too(name: str, padding: float) -> None:
    network = Network(WITH_PADDING[name], (5, 2), padding=padding)
    vector = somewhere(network)
    data = export(network, vector, "x")
    onnx.checker.check_model(data, full_check=True)
    x = np.where(GIVEN[..., np.newaxis], normal(len(GIVEN), (5, 2)), np.float32(padding)).astype(np.float32)
    x[0, 2, 0] = padding  # one number alone makes no padded place
    agree(network, vector, data, x)
    agree(network, vector, data, x[3:4])


@pytest.mark.parametrize(
    "layer", [Lstm(3), MultiHeadAttention(2), GlobalPool(MAX)], ids=lambda layer: type(layer).__name__
)
def test_words_with_padding(layer: Layer) -> None:
    network = Network((Embedding(9, 4), layer, Dense(2)), (5,), padding=0.0)
    vector = somewhere(network)
    words = np.random.default_rng(3).integers(1, 9, GIVEN.shape) * GIVEN
    agree(network, vector, export(network, vector, "x"), words.astype(np.float32))


def test_a_network_in_double_precision_is_written_in_single() -> None:
    network = NETWORKS["cnn"]
    vector = somewhere(network)
    x = normal(3, network.input_shape)
    data = export(network, vector.astype(np.float64), "x")
    np.testing.assert_array_equal(run(data, x), run(export(network, vector, "x"), x))


def test_a_file_that_would_be_too_large_is_refused() -> None:
    network = Network((Dense(5),), (3,))
    vector = network.initial(0)
    with pytest.raises(FailedPrecondition, match="has 80 bytes of arrays, and a file of ONNX can have at most 79"):
        export(network, vector, "x", most_bytes=79)
    assert export(network, vector, "x", most_bytes=80)


@st.composite
def geometries(draw: st.DrawFn) -> tuple[Layer, Shape]:
    """Convolutions and pooling of all kinds, over all images that they take."""

    def pair(least: int, most: int) -> Shape:
        return draw(st.tuples(st.integers(least, most), st.integers(least, most)))

    kernel, stride, same = pair(1, 4), pair(1, 3), draw(st.booleans())
    dilation, groups = pair(1, 2), draw(st.integers(1, 2))
    padding, margin = (SAME, ()) if same else (Padding.VALID, (min(kernel[0] - 1, 1), min(kernel[1] - 1, 2)))
    cls = draw(st.sampled_from([Conv2d, Conv2dTranspose, Pool2d]))
    layer: Layer = (
        Pool2d(draw(st.sampled_from(Pooling)), kernel, stride, padding, margin)
        if cls is Pool2d
        else cls(2 * groups, kernel, stride, padding, margin, dilation, groups)
    )
    return layer, (*pair(6, 8), 2)


@settings(max_examples=60, deadline=None)
@given(geometries())
def test_windows_lie_the_same_way(case: tuple[Layer, Shape]) -> None:
    layer, shape = case
    network = Network((layer,), shape)
    vector = somewhere(network)
    agree(network, vector, export(network, vector, "x"), normal(2, shape))
