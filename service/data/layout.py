"""Lays the columns of a table out in one file, block of rows by block of rows.

Rows come together, columns are kept apart; so the file has a place for every column, is reserved at its full size, and
is filled through a mapping as the rows come. Memory is needed for one block.
"""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from service.data.reading import MOST_COLUMNS, REST, Columns, Group, Reading, check_names, refuse
from worker.arrays import Array, Shape

ALIGNMENT = 64
FILE = "columns"
"""In the workspace."""


@dataclass(frozen=True)
class Field:
    """A column of the table as it comes."""

    name: str
    dtype: np.dtype[np.generic]
    row_shape: Shape = ()

    @property
    def is_number(self) -> bool:
        """Whether it has one number a row, so that it can stand beside others."""
        return self.dtype.kind != "U" and self.row_shape == ()


@dataclass(frozen=True)
class Place:
    """A column of the dataset: of which fields it is made, by their numbers, and where in the file it is."""

    name: str
    dtype: np.dtype[np.generic]
    row_shape: Shape
    fields: tuple[int, ...] = ()
    offset: int = 0

    def bytes(self, rows: int) -> int:
        """What it takes."""
        return rows * math.prod(self.row_shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Layout:
    """A table's columns, as they lie in the file."""

    rows: int
    places: tuple[Place, ...]

    @property
    def size(self) -> int:
        """Of the file."""
        return max(place.offset + place.bytes(self.rows) for place in self.places)

    def map(self, workspace: Path) -> Columns:
        """The columns, mapped into memory."""
        mapping = np.memmap(workspace / FILE, np.uint8, "r+")
        for place in self.places:
            part = mapping[place.offset : place.offset + place.bytes(self.rows)]
            yield place.name, part.view(place.dtype).reshape((self.rows, *place.row_shape))


def lay_out(fields: Sequence[Field], rows: int, blocks: Iterable[Sequence[Array]], reading: Reading) -> Layout:
    """Writes the columns of a table of `rows` rows, gathered as the groups say, to a file in the workspace.

    Each block has an array for every field, all of as many rows. Raises InvalidArgument, or OSError.
    """
    places = _places(fields, reading.groups)
    _check_size(places, rows, reading.most_bytes)
    layout = Layout(rows, tuple(_placed(places, rows)))
    with (reading.workspace / FILE).open("wb") as file:
        # A mapping of what turns out not to fit on the disk would end the process; reserving it fails in order.
        os.posix_fallocate(file.fileno(), 0, layout.size)
    views = dict(layout.map(reading.workspace))
    start = 0
    for block in blocks:
        count = len(block[0])
        if start + count > rows:
            raise refuse(f"says it has {rows:,} rows, but there are more")
        for place in layout.places:
            view = views[place.name][start : start + count]
            arrays = [block[number] for number in place.fields]
            view[...] = arrays[0].reshape(view.shape) if len(arrays) == 1 else np.stack(arrays, axis=1)
        start += count
    if start < rows:
        raise refuse(f"says it has {rows:,} rows, but {start:,} are there")
    return layout


def _places(fields: Sequence[Field], groups: Sequence[Group]) -> list[Place]:
    """Groups first, in their order, then what none of them takes."""
    numbers = {field.name: number for number, field in enumerate(fields)}
    taken = {name for group in groups for name in group.columns} - {REST}
    rest = [field.name for field in fields if field.name not in taken and field.is_number]
    places = [_gathered(group, fields, numbers, rest) for group in groups]
    if any(REST in group.columns for group in groups):
        taken.update(rest)
    places += [
        Place(field.name, field.dtype, field.row_shape, (number,))
        for number, field in enumerate(fields)
        if field.name not in taken
    ]
    if not 1 <= len(places) <= MOST_COLUMNS:
        raise refuse(
            f"has {len(places):,} columns; must have 1 to {MOST_COLUMNS:,}. "
            "A group gathers many of them into one: --group 'x=*'"
        )
    check_names(place.name for place in places)
    return places


def _gathered(group: Group, fields: Sequence[Field], numbers: dict[str, int], rest: Sequence[str]) -> Place:
    names = [name for named in group.columns for name in (rest if named == REST else [named])]
    for name in names:
        if name not in numbers:
            known = ", ".join(repr(field.name) for field in fields[:20])
            raise refuse(f"has no column {name!r}, which group {group.name!r} names; its columns: {known}")
    if not names:
        raise refuse(f"has no numeric column left for group {group.name!r}")
    found = tuple(numbers[name] for name in names)
    if group.columns == (names[0],):  # a column alone keeps its type and shape, under another name
        return Place(group.name, fields[found[0]].dtype, fields[found[0]].row_shape, found)
    for number in found:
        if not fields[number].is_number:
            kind = "text" if fields[number].dtype.kind == "U" else "lists"
            raise refuse(
                f"has {kind} in column {fields[number].name!r}, which group {group.name!r} names; "
                "several columns can be gathered only if each has one number a row"
            )
    dtype = np.result_type(*(fields[number].dtype for number in found))
    return Place(group.name, dtype, (len(found),), found)


def _check_size(places: Sequence[Place], rows: int, most_bytes: int) -> None:
    total = sum(place.bytes(rows) for place in places)
    if total > most_bytes:
        largest = max(places, key=lambda place: place.bytes(rows))
        raise refuse(
            f"unpacks to {total:,} bytes; must be at most {most_bytes:,}. "
            f"The largest column is {largest.name!r}, {rows:,} rows of {largest.bytes(1):,} bytes"
        )


def _placed(places: Sequence[Place], rows: int) -> Iterator[Place]:
    """Each at an offset of its own."""
    offset = 0
    for place in places:
        yield replace(place, offset=offset)
        offset += -place.bytes(rows) // ALIGNMENT * -ALIGNMENT
