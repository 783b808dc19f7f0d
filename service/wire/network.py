"""Networks and losses."""

from chainrule.v1 import network_pb2 as pb
from service.errors import Violations
from service.wire.fields import fill_kind, parse_kind
from worker.layers import LAYERS, Layer
from worker.losses import LOSSES, Loss

MOST_LAYERS = 1_000


def parse_layers(message: pb.Network, path: str, violations: Violations) -> tuple[Layer, ...]:
    """The layers that are right; the others are noted."""
    if not 1 <= len(message.layers) <= MOST_LAYERS:
        violations.add(f"{path}.layers", f"has {len(message.layers)} layers; must have 1 to {MOST_LAYERS:,}")
        return ()
    with_defaults = [_with_initializer(message, index) for index in range(len(message.layers))]
    parsed = [
        parse_kind(layer, LAYERS, f"{path}.layers[{index}]", violations) for index, layer in enumerate(with_defaults)
    ]
    return tuple(layer for layer in parsed if layer is not None)


def layers_message(layers: tuple[Layer, ...]) -> pb.Network:
    """The message for some layers."""
    network = pb.Network()
    for layer in layers:
        fill_kind(network.layers.add(), layer, LAYERS)
    return network


def parse_loss(message: pb.Loss, path: str, violations: Violations) -> Loss | None:
    """The loss, or None if that was noted as wrong."""
    return parse_kind(message, LOSSES, path, violations)


def loss_message(loss: Loss) -> pb.Loss:
    """The message for a loss."""
    message = pb.Loss()
    fill_kind(message, loss, LOSSES)
    return message


def _with_initializer(network: pb.Network, index: int) -> pb.Layer:
    """The layer, its initializer chosen where it was left to us: He before a ReLU, else Glorot."""
    layer = pb.Layer()
    layer.CopyFrom(network.layers[index])
    if layer.HasField("dense") and layer.dense.initializer == pb.Network.INITIALIZER_UNSPECIFIED:
        before_relu = network.layers[index + 1 : index + 2] and network.layers[index + 1].HasField("relu")
        layer.dense.initializer = pb.Network.HE_NORMAL if before_relu else pb.Network.GLOROT_UNIFORM
    return layer
