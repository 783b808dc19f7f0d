"""Writes docs/api.md: every call, message and field of the contract, with the comments that the protos have.

python protos/reference.py            writes it
python protos/reference.py --check    says whether it is as it should be
"""

import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from textwrap import dedent

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "api.md"

BEGIN = """\
# API

Everything that a coordinator can be asked over gRPC, from the contract in [protos/](../protos), whose comments this is:
`make docs` writes it. The server also answers health and reflection. Who may call what, and with which limits, is in
[security.md](security.md).

A call that is refused ends with a status code, a message for people, and in its details a `google.rpc.ErrorInfo` with a
reason for programs and the domain `chainrule`. With `INVALID_ARGUMENT` comes a `google.rpc.BadRequest` that names all
fields that are wrong; with `RESOURCE_EXHAUSTED`, where waiting helps, a `google.rpc.RetryInfo`.
"""

# Numbers of fields in descriptor.proto, of which the path to a comment is made.
MESSAGES, ENUMS, SERVICES, FIELDS, NESTED, NESTED_ENUMS, VALUES, METHODS, ONEOFS = 4, 5, 6, 2, 3, 4, 2, 2, 8

Location = tuple[int, ...]


@dataclass(frozen=True)
class File:
    """One proto, with its comments by where they stand."""

    proto: FileDescriptorProto
    comments: dict[Location, str]

    @classmethod
    def of(cls, proto: FileDescriptorProto) -> "File":
        """The comments before and beside things."""
        found = {
            tuple(each.path): each.leading_comments or each.trailing_comments
            for each in proto.source_code_info.location
        }
        return cls(proto, {path: text for path, text in found.items() if text})

    def comment(self, path: Location, indent: str = "") -> str:
        """A comment as Markdown: its paragraphs filled, and what is indented in it as it is."""
        return "\n\n".join(_paragraphs(dedent(self.comments.get(path, "")), indent))


def contract() -> list[File]:
    """The protos, in the order of the page."""
    protos = sorted((ROOT / "protos").glob("chainrule/*/*.proto"))
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory, "contract.binpb")
        arguments = [
            "protoc",
            f"--proto_path={ROOT / 'protos'}",
            f"--proto_path={files('grpc_tools') / '_proto'}",
            f"--descriptor_set_out={target}",
            "--include_source_info",
            *map(str, protos),
        ]
        if protoc.main(arguments) != 0:
            sys.exit("protoc failed; its messages are above")
        found = [File.of(proto) for proto in FileDescriptorSet.FromString(target.read_bytes()).file]
    # Training is what one comes for; the others follow by name, and last what isn't ours alone.
    return sorted(found, key=lambda file: ("training_s" not in file.proto.name, "inference" in file.proto.name))


def page(contract: Sequence[File]) -> str:
    """The page as it should be."""
    parts = [BEGIN, *_contents(contract)]
    for file in contract:
        parts += [part for index in range(len(file.proto.service)) for part in _service(file, index)]
    for file in contract:
        parts.append(f"## {file.proto.name}")
        parts += [_escaped(text) for text in _paragraphs(_file_comment(file), "")]
        for index, message in enumerate(file.proto.message_type):
            parts += _message(file, message, message.name, (MESSAGES, index))
        for index, enum in enumerate(file.proto.enum_type):
            parts += _enum(file, enum, enum.name, (ENUMS, index))
    return "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"


def _contents(contract: Iterable[File]) -> Iterator[str]:
    lines = []
    for file in contract:
        for service in file.proto.service:
            calls = ", ".join(f"[{method.name}](#{_anchor(method.name)})" for method in service.method)
            lines.append(f"* [{service.name}](#{_anchor(service.name)}): {calls}")
    yield "\n".join(lines)


def _service(file: File, index: int) -> Iterator[str]:
    service = file.proto.service[index]
    yield f"## {service.name}"
    yield f"`{file.proto.package}.{service.name}`"
    yield file.comment((SERVICES, index))
    for number, method in enumerate(service.method):
        yield f"### {method.name}"
        yield f"{_stream(method)}"
        yield file.comment((SERVICES, index, METHODS, number))


def _stream(method: MethodDescriptorProto) -> str:
    asked = f"{'a stream of ' if method.client_streaming else ''}{_link(method.input_type)}"
    return f"{asked} -> {'a stream of ' if method.server_streaming else ''}{_link(method.output_type)}"


def _message(file: File, message: DescriptorProto, name: str, path: Location) -> Iterator[str]:
    if message.options.map_entry:
        return
    yield f"### {name}"
    yield file.comment(path)
    entries = {entry.name: entry for entry in message.nested_type if entry.options.map_entry}
    yield "\n".join(line for index in range(len(message.field)) for line in _field(file, message, index, path, entries))
    for index, inner in enumerate(message.nested_type):
        yield from _message(file, inner, f"{name}.{inner.name}", (*path, NESTED, index))
    for index, enum in enumerate(message.enum_type):
        yield from _enum(file, enum, f"{name}.{enum.name}", (*path, NESTED_ENUMS, index))


def _field(
    file: File, message: DescriptorProto, index: int, path: Location, entries: dict[str, DescriptorProto]
) -> Iterator[str]:
    """A field's line; before the first of a oneof, the line of that."""
    field = message.field[index]
    grouped = field.HasField("oneof_index") and not field.proto3_optional
    before = message.field[index - 1] if index else None
    if grouped and not (before and before.HasField("oneof_index") and before.oneof_index == field.oneof_index):
        comment = file.comment((*path, ONEOFS, field.oneof_index), "  ")
        yield f"* one of, as `{message.oneof_decl[field.oneof_index].name}`: {comment}".rstrip()
    indent = "  " if grouped else ""
    comment = file.comment((*path, FIELDS, index), f"{indent}  ")
    yield f"{indent}* `{field.name}` = {field.number}, {_type(field, entries)}: {comment}"


def _type(field: FieldDescriptorProto, entries: dict[str, DescriptorProto]) -> str:
    if entry := entries.get(field.type_name.rpartition(".")[2]):
        return f"map of {_plain(entry.field[0])} to {_plain(entry.field[1])}"
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"any number of {_plain(field)}"
    return f"optional {_plain(field)}" if field.proto3_optional else _plain(field)


def _plain(field: FieldDescriptorProto) -> str:
    if field.type_name:
        return _link(field.type_name)
    return FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def _enum(file: File, enum: EnumDescriptorProto, name: str, path: Location) -> Iterator[str]:
    yield f"### {name}"
    yield file.comment(path)
    yield "\n".join(
        f"* `{value.name}` = {value.number}: {file.comment((*path, VALUES, index), '  ')}"
        for index, value in enumerate(enum.value)
    )


def _link(type_name: str) -> str:
    """A reference to a message or an enum: into this page if it is one of ours."""
    if type_name.startswith(".google."):
        return f"`{type_name.strip('.')}`"
    name = re.sub(r"^\.(chainrule\.v1|inference)\.", "", type_name)
    return f"[{name}](#{_anchor(name)})"


def _anchor(heading: str) -> str:
    """As GitHub makes it of a heading."""
    return heading.lower().replace(".", "")


def _file_comment(file: File) -> str:
    """What stands above the package."""
    package_path = (2,)
    return dedent(file.comments.get(package_path, ""))


def _paragraphs(text: str, indent: str) -> Iterator[str]:
    for number, paragraph in enumerate(re.split(r"\n\s*\n", text.strip("\n"))):
        lines: list[str] = []
        kept: list[str] = []
        for line in paragraph.splitlines():
            (kept if line.startswith("  ") else lines).append(line)
        if lines:
            filled = " ".join(line.strip() for line in lines)
            yield f"{indent if number else ''}{_escaped(filled)}"
        if kept:
            yield "\n".join(f"{indent}    {line}" for line in dedent("\n".join(kept)).splitlines())


def _escaped(text: str) -> str:
    return re.sub(r"([*<>_])", r"\\\1", text)


def main() -> None:
    """Writes the page, or with --check exits with 1 if it is not as it should be."""
    fresh = page(contract())
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(fresh)
    elif not PAGE.exists() or PAGE.read_text() != fresh:
        sys.exit(f"{PAGE.relative_to(ROOT)} is not what the protos say; run `make docs`")


if __name__ == "__main__":
    main()
