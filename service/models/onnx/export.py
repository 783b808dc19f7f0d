"""A whole network as an ONNX file."""

from service.errors import FailedPrecondition
from service.models.onnx.exporters import emit_all
from service.models.onnx.graph import Graph
from worker.arrays import Array
from worker.network import Network

OPSET, IR_VERSION = 20, 9
"""Of 2023: new enough for every operator that is used, old enough for the runtimes that are around."""

ROWS = "rows"
"""The name of the first axis, whose size is left open."""


def export(network: Network, vector: Array, input_column: str) -> bytes:
    """The file: it takes `input_column` (rows, *input_shape) in single precision, and gives "output".

    Raises FailedPrecondition if a layer can't be written so, or the onnx package isn't there.
    """
    if network.padding is not None:
        raise FailedPrecondition(
            "a network with padding can't be exported to ONNX, which has no word for it", reason="NOT_EXPORTABLE"
        )
    graph = Graph()
    x = graph.name(input_column)
    params = {slot.name.removeprefix("layers."): slot.view(vector) for slot in network.slots}
    y = emit_all(graph, network.layers, params, network.input_shape, "layers", x)
    output = graph.name("output")
    return _encoded(graph, network, (x, y, output))


def _encoded(graph: Graph, network: Network, names: tuple[str, str, str]) -> bytes:
    try:
        import onnx  # an extra, and slow to import
    except ImportError:
        raise FailedPrecondition(
            "this service was installed without the onnx package; install chainrule[onnx]", reason="ONNX_NOT_INSTALLED"
        ) from None
    x, y, output = names
    helper, single = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [helper.make_node(node.operator, node.inputs, node.outputs) for node in graph.nodes]
    for made, node in zip(nodes, graph.nodes, strict=True):
        made.attribute.extend(helper.make_attribute(name, value) for name, value in sorted(node.attributes.items()))
    model = helper.make_model(
        helper.make_graph(
            [*nodes, helper.make_node("Identity", [y], [output])],
            "network",
            [helper.make_tensor_value_info(x, single, (ROWS, *network.input_shape))],
            [helper.make_tensor_value_info(output, single, (ROWS, *network.output_shape))],
            [onnx.numpy_helper.from_array(value, name) for name, value in graph.constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="chainrule",
    )
    return bytes(model.SerializeToString(deterministic=True))
