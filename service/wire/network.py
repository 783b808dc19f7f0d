"""Networks and losses."""

from typing import Any

from google.protobuf.message import Message

from chainrule.v1 import network_pb2 as pb
from chainrule.v1.initializer_pb2 import GLOROT_UNIFORM, HE_NORMAL
from service.errors import Violations
from service.wire.fields import fill_kind, parse_kind
from worker.layers import LAYERS, Layer
from worker.losses import LOSSES, Loss

MOST_LAYERS = 1_000
RECTIFIED = ("relu", "leaky_relu", "elu", "gelu", "silu", "softplus")
"""The layers that silence half of what reaches them, for which He et al. (2015) wrote."""
NORMALIZATIONS = ("batch_norm", "layer_norm", "group_norm")
"""The layers that may stand before one of those and change nothing of it."""

ONE_HOT = ("embedding",)
"""The layers that keep an initializer of their own: what they sum has one term, so that fans say nothing."""


def parse_layers(message: pb.Network, path: str, violations: Violations) -> tuple[Layer, ...]:
    """The layers that are right; the others are noted."""
    count = _count(message)
    if not 1 <= count <= MOST_LAYERS or not message.layers:
        violations.add(f"{path}.layers", f"has {count} layers; must have 1 to {MOST_LAYERS:,}")
        return ()
    network = pb.Network()
    network.CopyFrom(message)
    _choose_initializers(network)
    parsed = [
        parse_kind(layer, LAYERS, f"{path}.layers[{index}]", violations) for index, layer in enumerate(network.layers)
    ]
    return tuple(layer for layer in parsed if layer is not None)


def network_message(layers: tuple[Layer, ...], padding: float | None = None) -> pb.Network:
    """The message for some layers."""
    network = pb.Network(padding=padding)
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


def _count(message: Message) -> int:
    """How many layers there are, those within others included."""
    inner = [item for _, value in message.ListFields() for item in _messages(value)]
    return isinstance(message, pb.Layer) + sum(map(_count, inner))


def _choose_initializers(message: Message) -> None:
    """Chooses where it was left to us: He before a layer of the ReLU family, normalized or not, else Glorot."""
    for _, value in message.ListFields():
        after = None
        for item in reversed(_messages(value)):
            _choose_initializers(item)
            if not isinstance(item, pb.Layer):
                continue
            kind = item.WhichOneof("kind")
            layer = getattr(item, kind) if kind else None
            if kind in ONE_HOT:
                continue
            if layer is not None and "initializer" in layer.DESCRIPTOR.fields_by_name and layer.initializer == 0:
                layer.initializer = HE_NORMAL if after in RECTIFIED else GLOROT_UNIFORM
            if kind not in NORMALIZATIONS:
                after = kind


def _messages(value: Any) -> list[Message]:
    """The messages that the value of a field consists of."""
    items = [value] if isinstance(value, Message) else value if not isinstance(value, str | bytes | int | float) else []
    return [item for item in items if isinstance(item, Message)]
