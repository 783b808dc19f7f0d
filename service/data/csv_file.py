"""Reads csv without trusting it: a header row, commas, UTF-8, quotes as in RFC 4180.

The file is read twice. The first time tells the type of every column and the number of rows; the second fills the
columns, whose place is known by then. A column is int64 if every cell is an integer of 64 bits; else float64 if every
cell is a number or empty, which is NaN; else text, kept as it is. Memory is needed for a block of rows.
"""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from service.data.layout import Field, lay_out
from service.data.reading import Columns, Reading, refuse
from worker.arrays import Array

MOST_FIELDS = 50_000
LONGEST_TEXT = 10_000
LONGEST_ROW = 4 << 20
"""Of the file's bytes, all lines of the row together."""

CHARACTERS_AT_ONCE = 1 << 20
ROWS_AT_ONCE = 16_384

# Cells of one block and column, joined by a character that no cell can have, so that one call tests them all. The
# quantifiers give nothing back: a long column costs neither time nor memory to refuse.
_INTEGER = r" *+[+-]?+[0-9]{1,30}+ *+"
_NUMBER = r" *+(?:[+-]?+(?:(?:[0-9]++\.?+[0-9]*+|\.[0-9]++)(?:[eE][+-]?+[0-9]++)?+|inf(?:inity)?+|nan))?+ *+"
_INTEGERS = re.compile(f"{_INTEGER}(?:\0{_INTEGER})*+")
_NUMBERS = re.compile(f"{_NUMBER}(?:\0{_NUMBER})*+", re.IGNORECASE)

INTEGER, NUMBER, TEXT = range(3)
"""What a column may be, each able to hold what those before it hold."""

_Block = tuple[list[Sequence[str]], list[int]]
"""The cells of some rows, column by column, and the line in which each row ended."""


def read_csv(path: Path, reading: Reading) -> Columns:
    """The columns of a csv file, gathered as the groups say. Raises InvalidArgument, naming the line."""
    names = next(_records(path))[0]
    _check_header(names)
    found = [_Found() for _ in names]
    rows = 0
    for cells, lines in _blocks(path, len(names)):
        rows += len(lines)
        for column, texts in zip(found, cells, strict=True):
            column.see(texts, lines)
    if not rows:
        raise refuse("has a header, but no rows below it")
    fields = [Field(name.strip(), column.dtype) for name, column in zip(names, found, strict=True)]

    def arrays() -> Iterator[list[Array]]:
        for cells, _ in _blocks(path, len(names)):
            yield [column.array(texts) for column, texts in zip(found, cells, strict=True)]

    yield from lay_out(fields, rows, arrays(), reading).map(reading.workspace)


@dataclass
class _Found:
    """What the cells of a column have in common, as far as they were seen."""

    kind: int = INTEGER
    longest: int = 1

    def see(self, texts: Sequence[str], lines: Sequence[int]) -> None:
        """Takes a block into account. Raises InvalidArgument for a text that is too long."""
        longest = max(map(len, texts))
        if longest > LONGEST_TEXT:
            line = next(line for text, line in zip(texts, lines, strict=True) if len(text) == longest)
            raise refuse(f"has a cell of {longest:,} characters at line {line:,}; must have at most {LONGEST_TEXT:,}")
        self.longest = max(self.longest, longest)
        if self.kind == INTEGER and not _are_integers(texts):
            self.kind = NUMBER
        if self.kind == NUMBER and not _NUMBERS.fullmatch("\0".join(texts)):
            self.kind = TEXT

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """The type that holds them all."""
        return np.dtype((np.int64, np.float64, f"<U{self.longest}")[self.kind])

    def array(self, texts: Sequence[str]) -> Array:
        """A block of cells in that type."""
        if self.kind == TEXT:
            return np.array(texts, self.dtype)
        convert: Callable[[str], float] = int if self.kind == INTEGER else _number
        return np.fromiter(map(convert, texts), self.dtype, len(texts))


def _are_integers(texts: Sequence[str]) -> bool:
    if not _INTEGERS.fullmatch("\0".join(texts)):
        return False
    if max(map(len, texts)) < 19:
        return True
    return all(-(2**63) <= int(text) < 2**63 for text in texts)


def _number(text: str) -> float:
    return float(text) if text.strip(" ") else np.nan


def _check_header(names: Sequence[str]) -> None:
    if len(names) > MOST_FIELDS:
        raise refuse(f"has {len(names):,} columns; must have at most {MOST_FIELDS:,}")
    if _NUMBERS.fullmatch("\0".join(names)) and any(name.strip() for name in names):
        raise refuse(
            f"has numbers in its first row ({', '.join(names[:3])[:100]}), which must name the columns: add a header"
        )
    stripped = [name.strip() for name in names]
    for number, name in enumerate(stripped, start=1):
        if not name:
            raise refuse(
                f"has no name for column {number:,} in its header; give it one, or leave the column out "
                "(in pandas: to_csv(..., index=False))"
            )
    if len(set(stripped)) < len(stripped):
        twice = next(name for name in stripped if stripped.count(name) > 1)
        raise refuse(f"has two columns {twice[:100]!r} in its header; give each a name of its own")


def _blocks(path: Path, width: int) -> Iterator[_Block]:
    """The rows below the header, some at a time."""
    rows: list[list[str]] = []
    lines: list[int] = []
    characters = 0
    records = _records(path)
    next(records)
    for record, line, length in records:
        if len(record) != width:
            raise refuse(f"has {len(record):,} cells in the row at line {line:,}, but its header names {width:,}")
        rows.append(record)
        lines.append(line)
        characters += length
        if characters >= CHARACTERS_AT_ONCE or len(rows) == ROWS_AT_ONCE:
            yield list(zip(*rows, strict=True)), lines
            rows, lines, characters = [], [], 0
    if rows:
        yield list(zip(*rows, strict=True)), lines


def _records(path: Path) -> Iterator[tuple[list[str], int, int]]:
    """Every row that isn't empty, the line in which it ends, and how many bytes it took."""
    with path.open("rb") as file:
        lines = _Lines(file)
        reader = csv.reader(lines, strict=True, skipinitialspace=True)
        while True:
            try:
                record = next(reader, None)
            except csv.Error as error:
                raise refuse(
                    f"can't be read as csv at line {lines.number:,}: a quote isn't closed, or something follows a "
                    "closing quote, or a line ends in a carriage return alone, or a cell is longer than 131,072 "
                    "characters"
                ) from error
            if record is None:
                if lines.rows == 0:
                    raise refuse("is empty; a csv file begins with a row that names its columns")
                return
            if record:
                lines.rows += 1
                yield record, lines.number, lines.length
            lines.length = 0


class _Lines:
    """The lines of a file as text, none of them longer than a row may be."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.number = 0
        self.rows = 0
        self.length = 0
        """Of the lines since this was last set to 0, in bytes."""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline(LONGEST_ROW + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self.length += len(line)
        if self.length > LONGEST_ROW:
            raise refuse(f"has a row of more than {LONGEST_ROW:,} bytes at line {self.number:,}, which is the most")
        if b"\0" in line:
            raise refuse(f"has a zero byte at line {self.number:,}; a csv file must be text in UTF-8")
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise refuse(
                f"is not text in UTF-8 at line {self.number:,}, byte {error.start + 1:,} of the line; save it as UTF-8"
            ) from None
        return text.removeprefix("\ufeff") if self.number == 1 else text
