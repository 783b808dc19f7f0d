"""Networks and losses."""

import dataclasses
import re
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from chainrule.v1 import network_pb2 as pb
from chainrule.v1.initializer_pb2 import GLOROT_UNIFORM, HE_NORMAL
from service.errors import InvalidArgument, Violations
from service.wire.fields import fill_kind, parse_kind
from worker.arrays import Shape
from worker.layers import LAYERS, Layer
from worker.losses import LOSSES, Loss
from worker.network import Network, Traits

MOST_LAYERS = 1_000
RECTIFIED = ("relu", "leaky_relu", "elu", "gelu", "silu", "softplus")
LARGEST_SCALE = 1_000_000.0
TRAITS = tuple(field.name for field in dataclasses.fields(Traits))
_NAME = re.compile(r"[a-z0-9_.-]{1,63}")
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


def parse_traits(message: pb.Network, path: str, violations: Violations) -> tuple[Traits, ...]:
    """How each layer takes part in the training; nothing if all do as they do by default. Notes what is wrong."""
    traits, places = [], dict[str, int]()
    for index, layer in enumerate(message.layers):
        where = f"{path}.layers[{index}]"
        scale = layer.learning_rate_scale if layer.HasField("learning_rate_scale") else 1.0
        if not 1 / LARGEST_SCALE <= scale <= LARGEST_SCALE:
            violations.add(
                f"{where}.learning_rate_scale",
                f"is {scale:g}; must be {1 / LARGEST_SCALE:g} to {LARGEST_SCALE:,.0f}; `frozen` keeps a layer as it is",
            )
        if layer.name and not _NAME.fullmatch(layer.name):
            violations.add(
                f"{where}.name",
                f"is {layer.name[:100]!r}; must have 1 to 63 lower-case letters, digits, dots, hyphens and underscores",
            )
        elif layer.name and (before := places.setdefault(layer.name, index)) != index:
            violations.add(f"{where}.name", f"is {layer.name!r}, as that of layers[{before}]; names must be unique")
        traits.append(Traits(layer.name, layer.frozen, scale, layer.fresh))
        _refuse_traits_within(getattr(layer, layer.WhichOneof("kind") or "", None), where, violations)
    return tuple(traits) if any(each != Traits() for each in traits) else ()


def network_message(
    layers: tuple[Layer, ...], padding: float | None = None, traits: tuple[Traits, ...] = ()
) -> pb.Network:
    """The message for some layers."""
    network = pb.Network(padding=padding)
    for index, layer in enumerate(layers):
        message = network.layers.add()
        fill_kind(message, layer, LAYERS)
        if traits and (of := traits[index]) != Traits():
            message.name, message.frozen, message.fresh = of.name, of.frozen, of.fresh
            if of.learning_rate_scale != 1:
                message.learning_rate_scale = of.learning_rate_scale
    return network


def model_json(layers: tuple[Layer, ...], padding: float | None, traits: tuple[Traits, ...]) -> str:
    """A network in JSON, as models carry it: of the traits the names alone, as the others were for the training."""
    names = tuple(Traits(each.name) for each in traits)
    return json_format.MessageToJson(network_message(layers, padding, names), indent=None)


def model_network(text: str, input_shape: Shape) -> Network:
    """The network that such JSON describes. Raises InvalidArgument if it isn't one of ours."""
    violations = Violations()
    try:
        message = json_format.Parse(text, pb.Network())
    except (json_format.ParseError, RecursionError):
        raise InvalidArgument.of("metadata.network", "is not a chainrule.v1.Network in JSON") from None
    network = parse_network(message, input_shape, "metadata.network", violations)
    violations.raise_any()
    return network


def parse_network(message: pb.Network, input_shape: Shape, path: str, violations: Violations) -> Network:
    """The network, as far as it is right; what isn't is noted."""
    padding = message.padding if message.HasField("padding") else None
    layers = parse_layers(message, path, violations)
    return Network(layers, input_shape, padding, traits=parse_traits(message, path, violations))


def model_loss(loss_json: str) -> Loss:
    """The loss that a model was trained with, as its description has it."""
    violations = Violations()
    loss = parse_loss(json_format.Parse(loss_json, pb.Loss()), "loss", violations)
    violations.raise_any()
    assert loss is not None  # noqa: S101 - a wrong one was noted
    return loss


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


def _refuse_traits_within(message: Message | None, path: str, violations: Violations) -> None:
    """Notes layers within a layer that have traits: they take part as the layer around them does."""
    for _, value in message.ListFields() if message else ():
        for item in _messages(value):
            if isinstance(item, pb.Layer):
                for field in {descriptor.name for descriptor, _ in item.ListFields()}.intersection(TRAITS):
                    violations.add(f"{path}.{field}", "is set on a layer within this one; set it on this one alone")
            _refuse_traits_within(item, path, violations)


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
