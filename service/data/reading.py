"""What every reader of a format has in common: what it is given, what it gives, how it refuses.

A reader is handed a file of strangers. It gives the columns one at a time, as arrays that may be mapped files in its
workspace, so that a dataset never has to fit into memory; and it holds every size that the file declares against the
file and against the limit before it takes memory or disk for it.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from service.errors import InvalidArgument
from worker.arrays import Array

MOST_COLUMNS = 1_000
LONGEST_NAME = 100
FIELD = "chunk"
"""What an error about the content of an upload is reported for."""

BYTES_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Group:
    """Columns of a table that become one column of the dataset, side by side."""

    name: str
    columns: tuple[str, ...]
    """Their names in this order; REST stands for every numeric column that no group names."""


REST = "*"


@dataclass(frozen=True)
class Reading:
    """What a reader may use and has to keep to."""

    most_bytes: int
    """How large everything may be once unpacked, on disk and in memory."""
    workspace: Path
    """A directory of its own, gone when the columns have been used."""
    groups: tuple[Group, ...] = ()


class Readable(Protocol):
    """Bytes to be read in order."""

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most `size`; none at the end."""


Columns: TypeAlias = Iterator[tuple[str, Array]]
Reader: TypeAlias = Callable[[Path, Reading], Columns]


def refuse(problem: str) -> InvalidArgument:
    """The error for a file that can't be a dataset."""
    return InvalidArgument.of(FIELD, problem, reason="BAD_DATASET")


def refuse_groups(reading: Reading) -> None:
    """Raises InvalidArgument if columns of a format that has no table are to be gathered."""
    if reading.groups:
        raise refuse(
            f"has arrays that are columns already, so that group {reading.groups[0].name!r} can gather nothing; "
            "groups are for csv, Parquet and Arrow"
        )


def check_names(names: Iterable[str]) -> None:
    """Raises InvalidArgument unless all may be names of one dataset's columns."""
    seen: set[str] = set()
    for name in names:
        if not is_column_name(name):
            raise refuse(
                f"has a column {name[:LONGEST_NAME]!r}; a column's name has 1 to {LONGEST_NAME} printable characters"
            )
        if name in seen:
            raise refuse(f"has two columns {name!r}; give each a name of its own")
        seen.add(name)


def is_column_name(name: str) -> bool:
    """Whether a text may be the name of a column."""
    return 1 <= len(name) <= LONGEST_NAME and name.isprintable()


def spool(source: Readable, target: Path, most_bytes: int) -> int:
    """Writes what comes out of an archive to a file; returns how much it was. Raises InvalidArgument beyond the limit.

    What the archive says about sizes is not asked: only what has come out counts.
    """
    written = 0
    with target.open("wb") as file:
        while data := source.read(BYTES_AT_ONCE):
            written += len(data)
            if written > most_bytes:
                raise refuse(f"unpacks to more than {most_bytes:,} bytes, which is the most")
            file.write(data)
    return written
