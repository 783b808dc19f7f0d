"""Maps a message to a frozen dataclass with the same field names, and back.

Layers, losses and optimizers have the same shape on both sides, so that a new one needs its message, its dataclass and
a row in a table, and no code here.
"""

import dataclasses
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from service.errors import Violations
from worker.errors import InvalidValue

T = TypeVar("T")


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
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]  # every kind is a dataclass
        descriptor = message.DESCRIPTOR.fields_by_name[field.name]
        value = getattr(message, field.name)
        if descriptor.type == FieldDescriptor.TYPE_ENUM:
            if value not in descriptor.enum_type.values_by_number:
                violations.add(f"{path}.{field.name}", f"has the unknown value {value}; {_choices(descriptor)}")
            elif value != 0:
                names: Any = type(field.default)
                values[field.name] = names[descriptor.enum_type.values_by_number[value].name]
        elif not descriptor.has_presence or message.HasField(field.name):
            values[field.name] = value
    try:
        return cls(**values)
    except InvalidValue as error:
        violations.add(f"{path}.{error.field}", error.problem)
        return None


def fill_kind(message: Message, value: Any, kinds: Mapping[str, type[Any]]) -> None:
    """Sets the oneof "kind" of a message from a dataclass."""
    kind = next(name for name, cls in kinds.items() if isinstance(value, cls))
    target = getattr(message, kind)
    target.SetInParent()
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        setattr(target, field.name, item.name if isinstance(item, Enum) else item)


def _choices(descriptor: FieldDescriptor) -> str:
    return "one of " + ", ".join(value.name for value in descriptor.enum_type.values if value.number != 0)
