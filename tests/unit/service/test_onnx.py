"""Networks as ONNX files: another runtime computes what ours does."""

import re

import numpy as np
import onnx
import onnxruntime
import pytest

from service.errors import FailedPrecondition
from service.models.onnx.export import OPSET, export
from service.models.onnx.exporters import EXPORTERS, NOT_EXPORTED
from tests.unit.worker.test_layers import CASES, Case, point
from worker.arrays import Array
from worker.layers import LAYERS, Concatenate, Dense, Dropout, ReLU, Residual, Stack, Tanh
from worker.network import Network

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
    assert all(NOT_EXPORTED.values())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_layer_gives_the_same_outputs_elsewhere(case: Case) -> None:
    network = Network((case.layer,), case.input_shape)
    at = point(case, dtype=np.float32)
    vector = np.empty(network.size, np.float32)
    for slot in network.slots:
        slot.view(vector)[...] = at.params[slot.key]
    if type(case.layer) in NOT_EXPORTED:
        with pytest.raises(FailedPrecondition, match=re.escape(NOT_EXPORTED[type(case.layer)])):
            export(network, vector, "x")
        return
    data = export(network, vector, "x")
    onnx.checker.check_model(data, full_check=True)
    np.testing.assert_allclose(run(data, at.x), network.forward(vector, at.x)[0], rtol=1e-5, atol=1e-5)


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


def test_padding_has_no_word_in_onnx() -> None:
    network = Network((Dense(2),), (4,), padding=0.0)
    with pytest.raises(FailedPrecondition, match="a network with padding can't be exported to ONNX"):
        export(network, network.initial(0), "x")
