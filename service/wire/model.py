"""What a model that is uploaded says of itself: in the request's header, or in the metadata of its file."""

import json
from collections.abc import Mapping

from google.protobuf import json_format

from chainrule.v1 import model_service_pb2 as pb
from chainrule.v1 import network_pb2
from service.errors import Violations
from service.models.files import check_network, check_shape
from service.models.registry import Origin
from service.wire.fitted import parse_fitted
from service.wire.network import parse_loss, parse_network
from worker.arrays import Shape
from worker.network import Network

LONGEST_COLUMN = 100


def described_network(header: pb.UploadModelHeader, metadata: Mapping[str, str]) -> Network:
    """The network of an upload, held against itself. The header goes before the metadata. Raises InvalidArgument."""
    violations = Violations()
    if header.HasField("network"):
        message, shape, path = header.network, tuple(header.input_shape), "header"
    else:
        message, shape, path = *_of_metadata(metadata, violations), "metadata"
        violations.raise_any()
    check_shape(shape, f"{path}.input_shape", violations)
    network = parse_network(message, shape, f"{path}.network", violations)
    violations.raise_any()
    check_network(network, f"{path}.network", violations)
    violations.raise_any()
    return network


def input_column(header: pb.UploadModelHeader, metadata: Mapping[str, str]) -> str:
    """The column that the model takes. Raises InvalidArgument."""
    found = header.input_column or metadata.get("input_column") or "x"
    violations = Violations()
    if len(found) > LONGEST_COLUMN or not found.isprintable():
        violations.add("header.input_column", f"must be at most {LONGEST_COLUMN} printable characters")
    violations.raise_any()
    return found


def told_origin(metadata: Mapping[str, str], input_shape: Shape) -> Origin | None:
    """What a file tells of how its model was made; None if nothing. Raises InvalidArgument."""
    violations = Violations()
    loss_json, preparation_json = metadata.get("loss", ""), metadata.get("preparation", "")
    if loss_json:
        message = network_pb2.Loss()
        try:
            json_format.Parse(loss_json, message)
            parse_loss(message, "metadata.loss", violations)
        except (json_format.ParseError, RecursionError):
            violations.add("metadata.loss", "is not a chainrule.v1.Loss in JSON")
    if preparation_json:
        parse_fitted(preparation_json, input_shape, "metadata.preparation", violations)
    violations.raise_any()
    return Origin(loss_json, "", "", preparation_json) if loss_json or preparation_json else None


def _of_metadata(metadata: Mapping[str, str], violations: Violations) -> tuple[network_pb2.Network, Shape]:
    message, shape = network_pb2.Network(), tuple[int, ...]()
    if "network" not in metadata:
        violations.add(
            "header.network", "is missing, and so is it in the file's metadata; give the network and its input_shape"
        )
        return message, shape
    try:
        json_format.Parse(metadata["network"], message)
    except (json_format.ParseError, RecursionError):
        violations.add("metadata.network", "is not a chainrule.v1.Network in JSON")
    try:
        sizes = json.loads(metadata.get("input_shape", ""))
    except (ValueError, RecursionError):
        sizes = None
    if isinstance(sizes, list) and all(type(size) is int for size in sizes):
        shape = tuple(sizes)
    else:
        violations.add("metadata.input_shape", "is not a list of whole numbers in JSON")
    return message, shape
