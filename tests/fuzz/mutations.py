"""Messages that are almost right: a good one with a few fields, or a few bytes, changed."""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

MOST_CHANGES = 4
DEEPEST = 60
"""How often a message is put into itself. protobuf reads up to 100 levels."""

TEXTS = (
    *("", " ", "x", "X", "-", "0", "*", "@", "@latest", "é", "\u202e", "\x00", "\n", "%s", "{}", "'\"; --", "\\"),
    *("../..", "../../etc/passwd", "/etc/passwd", "C:\\x", "file:///etc/passwd", "http://127.0.0.1:1/x", "s3://x/y"),
    *("jobs/", "jobs/../x", "jobs/nobody", "datasets/nobody", "models/nobody", "models/@nobody", "models/@latest"),
    *("x", "y", "output", "FP32", "BYTES", "a" * 63, "a" * 64, "x" * 5_000, "é" * 2_000),
)
WHOLE = (0, 1, 2, 3, 7, 64, 1_000, 10**6, 2**31 - 1, 2**32 - 1, 2**53, 2**63 - 1, 2**64 - 1, -1, -2, -(2**31), -(2**63))
FLOATS = (0.0, -0.0, 0.5, 1.0, -1.0, 1e-300, 1e300, 3.5e38, float("nan"), float("inf"), float("-inf"))
BYTES = (b"", b"\x00", b"\xff" * 9, b"PK\x03\x04", b"\x1f\x8b\x08\x00", b"PAR1", b"x,y\n1,2\n", bytes(4_096))

_INTEGERS = {
    **dict.fromkeys((FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_ENUM), (-(2**31), 2**31 - 1)),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}

Choice: TypeAlias = random.Random


def mutated(choice: Choice, seeds: Sequence[Sequence[Message]]) -> list[bytes]:
    """The messages of a call, most of them of one of the seeds, each of which is the messages of a good call."""
    messages = [_copy(message) for message in choice.choice(seeds)]
    for _ in range(choice.choice((0, 1, 1, 1, 2, MOST_CHANGES))):
        if messages:
            _change(choice, choice.choice(messages))
    written = [message.SerializeToString() for message in messages]
    if len(written) > 1 and choice.random() < 0.3:
        written = _reordered(choice, written)
    if written and choice.random() < 0.2:
        place = choice.randrange(len(written))
        for _ in range(choice.randint(1, MOST_CHANGES)):
            written[place] = choice.choice(BYTE_CHANGES)(choice, written[place])
    return written


def _copy(message: Message) -> Message:
    copied = type(message)()
    copied.CopyFrom(message)
    return copied


def _reordered(choice: Choice, messages: Sequence[bytes]) -> list[bytes]:
    """Of a stream: one message left out, or sent twice; or any of them in any order."""
    at = choice.randrange(len(messages))
    without = [*messages[:at], *messages[at + 1 :]]
    twice = [*messages[: at + 1], *messages[at:]]
    anyhow = [choice.choice(messages) for _ in range(choice.randint(0, len(messages)))]
    return choice.choice([without, twice, anyhow])


# Fields


def _change(choice: Choice, message: Message) -> None:
    """Changes one field of a message, or of one within it."""
    while within := list(_messages(message)):
        if choice.random() < 0.3:
            break
        message = choice.choice(within)
    fields = message.DESCRIPTOR.fields
    if not fields:
        return
    field = choice.choice(fields)
    if choice.random() < 0.15:
        message.ClearField(field.name)
    elif (cycle := _cycle(field)) and choice.random() < 0.3:
        _nest(message, cycle, choice.randint(2, DEEPEST))
    elif _is_map(field):
        _change_map(choice, message, field)
    elif field.is_repeated:
        _change_list(choice, message, field)
    elif field.message_type:
        getattr(message, field.name).SetInParent()
    else:
        setattr(message, field.name, _value(choice, field))


def _messages(message: Message) -> Iterator[Message]:
    """The messages that are set directly within one."""
    for field, value in message.ListFields():
        if not field.message_type or _is_map(field):
            continue
        if field.is_repeated:
            yield from value
        else:
            yield value


def _is_map(field: FieldDescriptor) -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)


def _change_map(choice: Choice, message: Message, field: FieldDescriptor) -> None:
    key, value = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
    entries: Any = getattr(message, field.name)
    if value.message_type:
        entries[_value(choice, key)].SetInParent()
    else:
        entries[_value(choice, key)] = _value(choice, value)


def _change_list(choice: Choice, message: Message, field: FieldDescriptor) -> None:
    """One item more, one less, one twice, or very many."""
    items: Any = getattr(message, field.name)
    if items and choice.random() < 0.3:
        del items[choice.randrange(len(items))]
    elif items and choice.random() < 0.5:
        items.extend([items[choice.randrange(len(items))]] * choice.choice([1, 2, 70, 1_500]))
    elif field.message_type:
        items.add()
    else:
        items.append(_value(choice, field))


def _value(choice: Choice, field: FieldDescriptor) -> Any:
    kind = field.cpp_type
    if kind in _INTEGERS:
        least, most = _INTEGERS[kind]
        numbers = list(field.enum_type.values_by_number) if field.enum_type else []
        return choice.choice([*numbers, *(number for number in WHOLE if least <= number <= most)])
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return choice.random() < 0.5
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return choice.choice(BYTES if field.type == FieldDescriptor.TYPE_BYTES else TEXTS)
    return choice.choice(FLOATS)


def _cycle(field: FieldDescriptor) -> list[FieldDescriptor]:
    """The fields by which a message can hold another of its own kind, beginning with this one; none if it can't."""
    return _path(field, field.containing_type, ()) if field.message_type and not _is_map(field) else []


def _path(field: FieldDescriptor, target: Descriptor, seen: tuple[str, ...]) -> list[FieldDescriptor]:
    inner = field.message_type
    if inner is None or _is_map(field) or inner.full_name in seen:
        return []
    if inner.full_name == target.full_name:
        return [field]
    for further in inner.fields:
        if found := _path(further, target, (*seen, inner.full_name)):
            return [field, *found]
    return []


def _nest(message: Message, cycle: Sequence[FieldDescriptor], times: int) -> None:
    """Puts a message into itself, and that into itself, and so on."""
    for _ in range(times):
        inner = _copy(message)
        message.Clear()
        place: Any = message
        for field in cycle:
            place = getattr(place, field.name).add() if field.is_repeated else getattr(place, field.name)
        place.CopyFrom(inner)


# Bytes


def _overwritten(choice: Choice, data: bytes) -> bytes:
    at = choice.randrange(len(data) + 1)
    return data[:at] + bytes([choice.choice((0, 1, 0x7F, 0x80, 0xFF, choice.randrange(256)))]) + data[at + 1 :]


def _inserted(choice: Choice, data: bytes) -> bytes:
    at = choice.randrange(len(data) + 1)
    return (
        data[:at]
        + choice.choice((b"\x0a", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x00", bytes(40)))
        + data[at:]
    )


def _cut(choice: Choice, data: bytes) -> bytes:
    return data[: choice.randrange(len(data) + 1)]


def _twice(choice: Choice, data: bytes) -> bytes:
    """Its fields merge with those of the first."""
    return data * choice.choice((2, 3))


BYTE_CHANGES: Sequence[Callable[[Choice, bytes], bytes]] = (_overwritten, _inserted, _cut, _twice)
