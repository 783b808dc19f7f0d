"""A whole network as an ONNX file."""

import numpy as np

from service.errors import FailedPrecondition
from service.models.onnx.exporters import emit_all
from service.models.onnx.graph import Graph
from worker.arrays import Array
from worker.network import Network

OPSET, IR_VERSION = 20, 9
"""Of 2023: new enough for every operator that is used, old enough for the runtimes that are around."""

ROWS = "rows"
"""The name of the first axis, whose size is left open."""

MOST_BYTES = 2_000_000_000
"""Of arrays in a file, which can't have 2 GiB (the format's, protobuf's, own limit)."""


def export(
    network: Network, vector: Array, input_column: str, preparation: str = "", most_bytes: int = MOST_BYTES
) -> bytes:
    """The file: it takes `input_column` (rows, *input_shape) in single precision, and gives "output".

    How that input is made of columns is no part of the graph: there is no operator for words. `preparation`, which says
    it, is written into the file's metadata.

    Raises FailedPrecondition if a layer can't be written so, the file would be too large, or the onnx package isn't
    there.
    """
    graph = Graph()
    x = graph.name(input_column)
    graph.mask = _mask(graph, network, x)
    single = vector.astype(np.float32, copy=False)
    params = {slot.name.removeprefix("layers."): slot.view(single) for slot in network.slots}
    y = emit_all(graph, network.layers, params, network.input_shape, "layers", x)
    size = sum(value.nbytes for value in graph.constants.values())
    if size > most_bytes:
        raise FailedPrecondition(
            f"the model has {size:,} bytes of arrays, and a file of ONNX can have at most {most_bytes:,}; "
            "download it as safetensors",
            reason="NOT_EXPORTABLE",
        )
    output = graph.name("output")
    return _encoded(graph, network, (x, y, output), preparation)


def _mask(graph: Graph, network: Network, x: str) -> str:
    """Where a place in time has any number that is not the padding; "" for a network without padding."""
    if network.padding is None or not network.input_shape:
        return ""
    given = graph.node("Not", graph.node("Equal", x, graph.number(network.padding)))
    if inner := range(2, len(network.input_shape) + 1):
        any_of = graph.node("ReduceMax", graph.cast(given, np.float32), graph.integers(*inner), keepdims=0)
        given = graph.cast(any_of, np.bool_)
    return given


def _encoded(graph: Graph, network: Network, names: tuple[str, str, str], preparation: str) -> bytes:
    try:
        import onnx  # an extra, and slow to import
    except ImportError:
        raise FailedPrecondition(
            "this service was installed without the onnx package; install chainrule[onnx]", reason="ONNX_NOT_INSTALLED"
        ) from None
    x, y, output = names
    needed, constants = graph.needed(y)
    helper, single = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [helper.make_node(node.operator, node.inputs, node.outputs) for node in needed]
    for made, node in zip(nodes, needed, strict=True):
        made.attribute.extend(helper.make_attribute(name, value) for name, value in sorted(node.attributes.items()))
    model = helper.make_model(
        helper.make_graph(
            [*nodes, helper.make_node("Identity", [y], [output])],
            "network",
            [helper.make_tensor_value_info(x, single, (ROWS, *network.input_shape))],
            [helper.make_tensor_value_info(output, single, (ROWS, *network.output_shape))],
            [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="chainrule",
    )
    if preparation:
        helper.set_model_props(model, {"preparation": preparation})
    return bytes(model.SerializeToString(deterministic=True))
