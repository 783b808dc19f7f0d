"""Networks as ONNX files: another runtime computes what ours does."""

import re

import numpy as np
import onnx
import onnxruntime
import pytest

from service.data.classes import FittedClasses
from service.data.preparation import FittedPreparation
from service.errors import FailedPrecondition
from service.models.onnx.export import OPSET, export
from service.models.onnx.exporters import EXPORTERS, NOT_EXPORTED
from tests.unit.worker.test_layers import CASES, Case, point
from worker.arrays import Array
from worker.layers import (
    LAYERS,
    BatchNorm,
    Concatenate,
    Conv1d,
    Conv1dTranspose,
    Conv2d,
    Conv2dTranspose,
    Dense,
    Dropout,
    Flatten,
    GlobalPool,
    GroupNorm,
    LayerNorm,
    Lstm,
    MultiHeadAttention,
    Padding,
    Pool1d,
    Pool2d,
    Pooling,
    PositionalEncoding,
    Quantum,
    RecurrentActivation,
    ReLU,
    Rescale,
    Reshape,
    Residual,
    SimpleRnn,
    Softmax,
    Stack,
    Tanh,
)
from worker.network import Network

SAME, MAX, AVERAGE, RELU = Padding.SAME, Pooling.MAX, Pooling.AVERAGE, RecurrentActivation.RELU

MORE = [
    Case("rows of one number", ReLU(), ()),
    Case("rows of one number, flattened", Flatten(), ()),
    Case("rows of one number, rescaled", Rescale((2.0,), (-1.0,)), ()),
    Case("no reshape at all", Reshape((-1, 2)), (3, 2)),
    Case("softmax of a single number", Softmax(), (1,)),
    Case("conv2d, all at once", Conv2d(6, (3, 2), (2, 1), SAME, dilation=(1, 2), groups=3), (6, 5, 3)),
    Case("conv1d, an even kernel and an odd margin", Conv1d(2, (4,), (3,), SAME), (8, 3)),
    Case(
        "conv1d_transpose, in groups and apart", Conv1dTranspose(4, (2,), (4,), SAME, dilation=(2,), groups=2), (3, 6)
    ),
    Case("conv1d_transpose, padded", Conv1dTranspose(2, (5,), (2,), padding_size=(2,)), (4, 3)),
    Case("conv2d_transpose, another way along each axis", Conv2dTranspose(3, (2, 5), (3, 2), SAME), (3, 2, 2)),
    Case("max pool2d, gaps", Pool2d(MAX, (2,), (3,), SAME), (6, 5, 2)),
    Case("average pool1d, a wide margin", Pool1d(AVERAGE, (4,), (1,), padding_size=(3,)), (5, 2)),
    Case("global average of a volume", GlobalPool(AVERAGE), (2, 3, 2, 4)),
    Case("group_norm on a sequence", GroupNorm(3), (5, 6)),
    Case("batch_norm on a sequence", BatchNorm(epsilon=0.01), (5, 3)),
    Case("layer_norm of one feature", LayerNorm(), (3, 1)),
    Case("lstm of one place", Lstm(3, bidirectional=True, return_sequences=True), (1, 2)),
    Case("simple rnn with relu, both ways", SimpleRnn(3, bidirectional=True, activation=RELU), (4, 2)),
    Case("attention with a single key", MultiHeadAttention(2, key_size=1, causal=True), (5, 3)),
    Case("waves over an odd number", PositionalEncoding(), (6, 3)),
    Case("quantum of as many qubits as there may be", Quantum(8, 1), (8,)),
    Case("quantum, as deep as it may be", Quantum(4, 8), (4,)),
]
"""Beside those that every layer is tested with."""

NETWORK = Network(
    (
        Dense(6),
        ReLU(),
        Residual((Dense(4), Tanh(), Dense(6))),
        Concatenate((Stack((Dense(2),)), Stack(), Stack((Residual((Dense(6),)), Dropout())))),
        Dense(3),
    ),
    (4,),
)


def run(data: bytes, x: Array, column: str = "x") -> Array:
    """What the other runtime makes of some rows."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {column: x})
    return np.asarray(y)


def test_every_layer_can_be_written_or_says_why_not() -> None:
    assert EXPORTERS.keys() | NOT_EXPORTED.keys() == set(LAYERS.values())
    assert not EXPORTERS.keys() & NOT_EXPORTED.keys()
    assert {type(case.layer) for case in CASES} == set(LAYERS.values())
    assert all(NOT_EXPORTED.values())


def vector_of(case: Case, network: Network) -> Array:
    """Random parameters; a variance, as they are, above zero."""
    params = point(case, dtype=np.float32).params
    vector = np.empty(network.size, np.float32)
    for slot in network.slots:
        value = params[slot.key]
        slot.view(vector)[...] = np.abs(value) + 0.1 if slot.key.endswith("variance") else value
    return vector


def agree(network: Network, vector: Array, data: bytes, x: Array) -> None:
    """The other runtime computes the same."""
    np.testing.assert_allclose(run(data, x), network.forward(vector, x)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", [*CASES, *MORE], ids=lambda case: case.name)
def test_a_layer_gives_the_same_outputs_elsewhere(case: Case) -> None:
    network = Network((case.layer,), case.input_shape)
    vector = vector_of(case, network)
    if type(case.layer) in NOT_EXPORTED:
        with pytest.raises(FailedPrecondition, match=re.escape(NOT_EXPORTED[type(case.layer)])):
            export(network, vector, "x")
        return
    data = export(network, vector, "x")
    onnx.checker.check_model(data, full_check=True)
    for rows in (1, 7):
        agree(network, vector, data, point(case, rows, np.float32).x)


@pytest.mark.parametrize("column", ["x", "pixels", "output", "layers.0.weight", "matmul", "two words"])
def test_a_network_takes_any_number_of_rows_under_the_name_of_its_column(column: str) -> None:
    vector = NETWORK.initial(seed=3)
    data = export(NETWORK, vector, column)
    onnx.checker.check_model(data, full_check=True)
    for rows in (1, 5, 17):
        x = np.random.default_rng(rows).standard_normal((rows, 4)).astype(np.float32)
        y = run(data, x, column)
        np.testing.assert_allclose(y, NETWORK.forward(vector, x)[0], rtol=1e-5, atol=1e-5)


def test_what_the_file_says() -> None:
    vector = NETWORK.initial(seed=3)
    model = onnx.load_from_string(export(NETWORK, vector, "pixels"))
    assert model.producer_name == "chainrule"
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    (x,), (y,) = model.graph.input, model.graph.output
    sizes = [[axis.dim_param or axis.dim_value for axis in each.type.tensor_type.shape.dim] for each in (x, y)]
    assert ((x.name, y.name), sizes) == (("pixels", "output"), [["rows", 4], ["rows", 3]])
    named = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert named.keys() == {slot.name for slot in NETWORK.slots}
    for slot in NETWORK.slots:
        assert named[slot.name].tobytes() == slot.view(vector).tobytes()
    assert export(NETWORK, vector, "pixels") == model.SerializeToString(deterministic=True)


def test_how_inputs_are_made_is_told_beside_the_graph() -> None:
    vector, fitted = NETWORK.initial(seed=3), FittedPreparation((), FittedClasses("y", ("no", "yes")))
    model = onnx.load_from_string(export(NETWORK, vector, "x", fitted.to_json()))
    (told,) = model.metadata_props
    assert (told.key, FittedPreparation.from_json(told.value)) == ("preparation", fitted)
