"""What requests say about datasets: how a file is laid out, which columns are gathered, what an upload is known by."""

from collections.abc import Sequence

from chainrule.v1 import dataset_service_pb2 as pb
from service.data.formats import Format
from service.data.reading import LONGEST_NAME, MOST_COLUMNS, REST, Group, is_column_name
from service.data.uploads import UploadKey
from service.errors import Violations
from service.wire.names import require_id

MOST_NAMES = 50_000


def parse_upload_key(header: pb.UploadDatasetHeader | pb.QueryUploadRequest, path: str) -> UploadKey:
    """What an upload is known by. Raises InvalidArgument, naming each wrong field below `path`."""
    require_id(header.dataset_id, f"{path}dataset_id")
    violations = Violations()
    if header.size_bytes < 1:
        violations.add(f"{path}size_bytes", f"is {header.size_bytes}; must be the file's size, above 0")
    sha256 = header.sha256.lower()
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        violations.add(f"{path}sha256", "must be the file's SHA-256: 64 hexadecimal digits")
    violations.raise_any()
    return UploadKey(header.dataset_id, sha256, header.size_bytes)


def parse_format(value: int, field: str, violations: Violations) -> Format | None:
    """A file's format, None if it is to be found out."""
    if value == pb.Dataset.FORMAT_UNSPECIFIED:
        return None
    names = [known.name for known in Format]
    found = pb.Dataset.Format.DESCRIPTOR.values_by_number.get(value)
    if found is None or found.name not in names:
        violations.add(field, f"is {value}; must be {', '.join(names)}, or unset to find it out")
        return None
    return Format[found.name]


def parse_groups(messages: Sequence[pb.ColumnGroup], field: str, violations: Violations) -> tuple[Group, ...]:
    """How columns are to be gathered; whether the file has them is seen later."""
    if len(messages) > MOST_COLUMNS:
        violations.add(field, f"has {len(messages):,} groups; must have at most {MOST_COLUMNS:,}")
        return ()
    names: set[str] = set()
    taken: set[str] = set()
    for number, group in enumerate(messages):
        path = f"{field}[{number}]"
        if not is_column_name(group.name):
            violations.add(
                f"{path}.name", f"is {group.name[:LONGEST_NAME]!r}; must have 1 to {LONGEST_NAME} printable characters"
            )
        if group.name in names:
            violations.add(f"{path}.name", f"is {group.name!r}, as another group's is; give each a name of its own")
        names.add(group.name)
        if not 1 <= len(group.columns) <= MOST_NAMES:
            violations.add(
                f"{path}.columns",
                f"has {len(group.columns):,} names; must have 1 to {MOST_NAMES:,}, or {REST!r} for all that are left",
            )
        twice = next((name for name in group.columns if name in taken or taken.add(name)), None)  # type: ignore[func-returns-value]
        if twice is not None:
            violations.add(f"{path}.columns", f"names {twice[:LONGEST_NAME]!r} again; a column goes into one place")
    return tuple(Group(group.name, tuple(group.columns)) for group in messages)


def group_messages(groups: Sequence[Group]) -> list[pb.ColumnGroup]:
    """Groups, as clients see them."""
    return [pb.ColumnGroup(name=group.name, columns=group.columns) for group in groups]


def format_value(known: Format) -> "pb.Dataset.Format.ValueType":
    """A format, as clients see it."""
    return pb.Dataset.Format.Value(known.name)
