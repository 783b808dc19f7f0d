"""Maps a message to a frozen dataclass with the same field names, and back.

Layers, losses and optimizers have the same shape on both sides, so that a new one needs its message, its dataclass and
a row in a table, and no code here. A field may hold several values, or messages that are mapped in the same way.
"""

import dataclasses
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from service.errors import Violations
from worker.errors import InvalidValue
from worker.layers import LAYERS, Stack

T = TypeVar("T")

Kinds: TypeAlias = Mapping[str, type[Any]]
"""Which dataclass belongs to which field of a oneof "kind"."""


def parse_kind(message: Message, kinds: Mapping[str, type[T]], path: str, violations: Violations) -> T | None:
    """Parses the kind that is set in a message's oneof "kind". Notes what is wrong and then returns None."""
    kind = message.WhichOneof("kind")
    if kind is None:
        violations.add(path, f"says nothing; set one of {', '.join(kinds)}")
        return None
    return parse(getattr(message, kind), kinds[kind], f"{path}.{kind}", violations)


def parse(message: Message, cls: type[T], path: str, violations: Violations) -> T | None:
    """Parses a message into a dataclass. What is unset gets the dataclass's default."""
    values: dict[str, Any] = {}
    is_whole = True
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]  # every kind is a dataclass
        descriptor = message.DESCRIPTOR.fields_by_name[field.name]
        value = getattr(message, field.name)
        where = f"{path}.{field.name}"
        if descriptor.type == FieldDescriptor.TYPE_MESSAGE:
            if descriptor.is_repeated:
                items = [_parse_message(item, f"{where}[{index}]", violations) for index, item in enumerate(value)]
                is_whole = is_whole and None not in items
                values[field.name] = tuple(items)
            elif message.HasField(field.name):
                values[field.name] = _parse_message(value, where, violations)
                is_whole = is_whole and values[field.name] is not None
        elif descriptor.is_repeated:
            if value:
                values[field.name] = tuple(value)
        elif descriptor.type == FieldDescriptor.TYPE_ENUM:
            if value not in descriptor.enum_type.values_by_number:
                violations.add(where, f"has the unknown value {value}; {_choices(descriptor)}")
            elif value != 0:
                names: Any = type(field.default)
                values[field.name] = names[descriptor.enum_type.values_by_number[value].name]
        elif not descriptor.has_presence or message.HasField(field.name):
            values[field.name] = value
    if not is_whole:
        return None
    try:
        return cls(**values)
    except InvalidValue as error:
        violations.add(f"{path}.{error.field}", error.problem)
        return None


def fill_kind(message: Message, value: Any, kinds: Kinds) -> None:
    """Sets the oneof "kind" of a message from a dataclass."""
    kind = next(name for name, cls in kinds.items() if type(value) is cls)
    fill(getattr(message, kind), value)


def fill(message: Message, value: Any) -> None:
    """Sets the fields of a message from a dataclass."""
    message.SetInParent()
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if item is None:
            continue
        descriptor = message.DESCRIPTOR.fields_by_name[field.name]
        target = getattr(message, field.name)
        if descriptor.type == FieldDescriptor.TYPE_MESSAGE:
            for part in item if descriptor.is_repeated else [item]:
                _fill_message(target.add() if descriptor.is_repeated else target, part)
        elif descriptor.is_repeated:
            target.extend(item)
        else:
            setattr(message, field.name, item.name if isinstance(item, Enum) else item)


def _parse_message(message: Message, path: str, violations: Violations) -> Any:
    nested = NESTED[message.DESCRIPTOR.full_name]
    if isinstance(nested, Mapping):
        return parse_kind(message, nested, path, violations)
    return parse(message, nested, path, violations)


def _fill_message(message: Message, value: Any) -> None:
    nested = NESTED[message.DESCRIPTOR.full_name]
    if isinstance(nested, Mapping):
        fill_kind(message, value, nested)
    else:
        fill(message, value)


NESTED: Mapping[str, Kinds | type[Any]] = MappingProxyType({"chainrule.v1.Layer": LAYERS, "chainrule.v1.Stack": Stack})
"""What messages within messages are mapped to, by the message's full name."""


def _choices(descriptor: FieldDescriptor) -> str:
    return "one of " + ", ".join(value.name for value in descriptor.enum_type.values if value.number != 0)
