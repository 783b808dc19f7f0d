"""Rows to predict from, read from a file: .npy, .npz, or csv."""

import csv
import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.errors import DatasetFileError

NPY, ZIP = b"\x93NUMPY", b"PK\x03\x04"


def read_rows(data: bytes, name: str, column: str, row_shape: tuple[int, ...]) -> NDArray[np.generic]:
    """The rows in a file's bytes, (rows, *row_shape) where they can be brought into that shape.

    Of an .npz the array called `column`. Of csv every column, in their order, under a header or without one. Raises
    DatasetFileError, naming the file by `name`.
    """
    try:
        if data.startswith(NPY):
            return _array(np.load(io.BytesIO(data), allow_pickle=False))
        if data.startswith(ZIP):
            return _column(data, name, column)
        return _of_table(data, name, row_shape)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, csv.Error) as error:
        raise DatasetFileError(f"{name}: {error}") from error


def read_columns(data: bytes, name: str, wanted: Mapping[str, bool], length: int = 0) -> dict[str, NDArray[Any]]:
    """The columns in a file's bytes that a model makes its input of, by name.

    `wanted` tells of each whether it holds text. Of an .npz the arrays of these names; of csv the columns that its
    header calls so, where an empty number is missing (NaN). With a `length`, of rows in the order of time each window
    of so many rows: (windows, length, ...). Raises DatasetFileError, naming the file by `name`.
    """
    try:
        if data.startswith(NPY):
            raise ValueError(f"has one array; the model takes a column each of {', '.join(map(repr, wanted))}")
        if data.startswith(ZIP):
            columns = {column: _column(data, name, column) for column in wanted}
        else:
            columns = _of_named(data, wanted)
        return {column: _windows(values, length) if length else values for column, values in columns.items()}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, csv.Error) as error:
        raise DatasetFileError(f"{name}: {error}") from error


def write_outputs(path: Path, numbers: NDArray[np.generic]) -> None:
    """Writes an array as csv if the file is called so, and else as .npy. Raises OSError."""
    if path.suffix.lower() == ".csv":
        np.savetxt(path, numbers.reshape(len(numbers), -1), "%.9g", ",")
        return
    with path.open("wb") as file:  # NumPy would add an ending of its own to other names
        np.save(file, numbers, allow_pickle=False)


def _array(loaded: object) -> NDArray[np.generic]:
    if not isinstance(loaded, np.ndarray):
        raise ValueError("has no array")
    return loaded


def _column(data: bytes, name: str, column: str) -> NDArray[np.generic]:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        if column not in arrays:
            known = ", ".join(map(repr, list(arrays)[:20]))
            raise DatasetFileError(f"{name} has no array {column!r}, which the model takes; it has {known}")
        return _array(arrays[column])


def _of_table(data: bytes, name: str, row_shape: tuple[int, ...]) -> NDArray[np.float64]:
    lines = [line for line in csv.reader(io.StringIO(data.decode("utf-8-sig"))) if line]
    if lines and not all(map(_is_number, lines[0])):
        del lines[0]
    width = math.prod(row_shape)
    for number, line in enumerate(lines, start=1):
        if len(line) != width:
            raise DatasetFileError(
                f"{name} has {len(line):,} columns in row {number:,}; the model takes rows of {width:,} numbers"
            )
    return np.array(lines, np.float64).reshape(len(lines), *row_shape)


def _of_named(data: bytes, wanted: Mapping[str, bool]) -> dict[str, NDArray[Any]]:
    header, *lines = [line for line in csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")) if line] or [[]]
    names = [title.strip() for title in header]
    if missing := [column for column in wanted if column not in names]:
        raise ValueError(f"has no column {missing[0]!r} in its header, which the model takes")
    for number, line in enumerate(lines, start=1):
        if len(line) != len(names):
            raise ValueError(f"has {len(line):,} columns in row {number:,}; its header has {len(names):,}")
    columns: dict[str, NDArray[Any]] = {}
    for column, is_text in wanted.items():
        cells = [line[names.index(column)] for line in lines]
        columns[column] = np.array(cells, str) if is_text else _numbers(column, cells)
    return columns


def _numbers(column: str, cells: list[str]) -> NDArray[np.float64]:
    try:
        return np.array([float(cell) if cell.strip() else math.nan for cell in cells], np.float64)
    except ValueError as error:
        raise ValueError(f"{column!r} must hold numbers: {error}") from None


def _windows(values: NDArray[Any], length: int) -> NDArray[Any]:
    if len(values) < length:
        raise ValueError(f"has {len(values):,} rows; the model takes windows of {length:,}")
    return np.moveaxis(np.lib.stride_tricks.sliding_window_view(values, length, axis=0), -1, 1)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
