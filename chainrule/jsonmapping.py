"""Finds what is wrong with a mapping that is meant to become a protobuf message, before protobuf's own parser sees it.

The parser stops at the first mistake and describes it in terms of its own code ("'int' object is not iterable"). This
walk finds them all, with their paths, and says what would be right.
"""

import difflib
from collections.abc import Iterator, Sequence

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from chainrule.errors import Violation

INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
FLOATS = {FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT}


def violations(value: object, message: Descriptor, path: str = "") -> Iterator[Violation]:
    """The mistakes in `value` as protobuf's JSON mapping of a message of that type; `path` is where it stands."""
    if not isinstance(value, dict):
        yield Violation(path, f"must be a mapping of fields, not {_kind(value)}; {_choice(message)}")
        return
    fields = {name: field for field in message.fields for name in (field.name, field.json_name)}
    chosen: dict[str, str] = {}
    for name, content in value.items():
        field = fields.get(name)
        if field is None:
            yield Violation(path, f'has no field "{name}"; {_meant(str(name), [f.name for f in message.fields])}')
            continue
        if field.containing_oneof is not None and len(field.containing_oneof.fields) > 1 and content is not None:
            other = chosen.setdefault(field.containing_oneof.name, field.name)
            if other != field.name:
                yield Violation(path, f"has both {other} and {field.name}; only one of them can be")
        yield from _field(content, field, f"{path}.{field.name}" if path else field.name)


def _field(value: object, field: FieldDescriptor, path: str) -> Iterator[Violation]:
    if not field.is_repeated:
        yield from _single(value, field, path)
    elif field.message_type is not None and field.message_type.GetOptions().map_entry:
        yield from _map(value, field.message_type, path)
    elif not isinstance(value, list):
        example = f", as [{value}]" if type(value) in (int, float) else ""
        yield Violation(path, f"must be a list{example}, not {_kind(value)}")
    else:
        for index, element in enumerate(value):
            yield from _single(element, field, f"{path}[{index}]")


def _map(value: object, entry: Descriptor, path: str) -> Iterator[Violation]:
    if not isinstance(value, dict):
        yield Violation(path, f"must be a mapping, not {_kind(value)}")
        return
    of_keys, of_values = entry.fields_by_name["key"], entry.fields_by_name["value"]
    for key, content in value.items():
        if wrong := _scalar(key, of_keys):
            yield Violation(path, f"has a key that {wrong}")
        elif content is None:
            yield Violation(f"{path}[{key}]", "is empty")
        else:
            yield from _single(content, of_values, f"{path}[{key}]")


def _single(value: object, field: FieldDescriptor, path: str) -> Iterator[Violation]:
    if field.message_type is not None:
        if value is None:
            name = field.name if not field.is_repeated else "a field"
            yield Violation(path, f"is empty; {name} with nothing but defaults is written {name}: {{}}")
        elif isinstance(value, str) and value in field.message_type.fields_by_name:
            yield Violation(path, f"must be a mapping of fields, not text; write {value}: {{}}")
        else:
            yield from violations(value, field.message_type, path)
    elif value is not None and (wrong := _scalar(value, field)):
        yield Violation(path, wrong)


def _scalar(value: object, field: FieldDescriptor) -> str:
    """What is wrong with a scalar; empty if nothing is."""
    if field.enum_type is not None:
        names = [each.name for each in field.enum_type.values if each.number != 0]
        known = isinstance(value, str) and value in field.enum_type.values_by_name
        return "" if known else f"{_shown(value)} is not a value of it; {_meant(str(value), names)}"
    if field.cpp_type in INTEGERS:
        least, most = INTEGERS[field.cpp_type]
        number = _number(value)
        if number is None or not number.is_integer():
            return f"must be a whole number, not {_shown(value)}"
        return "" if least <= number <= most else f"must be {least} to {most}, not {_shown(value)}"
    if field.cpp_type in FLOATS:
        return "" if _number(value) is not None else f"must be a number, not {_shown(value)}"
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return "" if isinstance(value, bool) else f"must be true or false, not {_shown(value)}"
    return "" if isinstance(value, str) else f'must be text, not {_shown(value)}; put it in quotes: "{_shown(value)}"'


def _number(value: object) -> float | None:
    """The number that protobuf would read: a number, or one written as text, as YAML takes 1e-3 to be."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _meant(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name.lower(), [each.lower() for each in known], n=1)
    if close:
        return f"did you mean {next(each for each in known if each.lower() == close[0])}?"
    return f"there are {', '.join(known)}" if known else "it has no fields"


def _choice(message: Descriptor) -> str:
    return f"its fields are {', '.join(message.fields_by_name)}" if message.fields else "it has no fields: write {}"


def _kind(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case str():
            return f"the text {_shown(value)}"
        case _:
            return _shown(value)


def _shown(value: object) -> str:
    """A value for a message. Containers are not shown: through aliases a small file can hold a huge one."""
    if isinstance(value, dict | list):
        return _kind(value)
    text = {None: "nothing", True: "true", False: "false"}.get(value) if isinstance(value, bool | None) else str(value)
    return (text or '""')[:60]
