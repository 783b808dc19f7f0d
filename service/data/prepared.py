"""Writes what was prepared as a dataset in a directory of its own, which is read as any other.

Columns that are taken as they are cost nothing: they are links to the same files.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from service.data.columns import Column, describe
from service.data.datasets import Dataset, read_column, write_description
from service.data.features import NotPreparable
from service.data.preparation import FittedPreparation, prepare
from service.data.windows import in_pieces
from service.errors import InvalidArgument
from worker.arrays import Array, Shape

NUMBERS_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Roles:
    """The names of the columns that a network takes, is held against, and that weigh the rows; "" for none."""

    inputs: str
    targets: str
    weights: str = ""


def write_prepared(
    fitted: FittedPreparation,
    dataset: Dataset,
    source: Path,
    directory: Path,
    roles: Roles,
    dtype: np.dtype[np.floating],
    check_size: Callable[[int], None],
    path: str,
    windows: tuple[range, ...] | None = None,
) -> Dataset:
    """Makes a dataset of the columns that have a role, of one that lies in `source`.

    Of its windows, if inputs are such, those in `windows` are taken, one after the other; by default all. `check_size`
    is told how many bytes it will take. Raises InvalidArgument, naming fields below `path`, or OSError.
    """
    parts = _all(fitted, dataset, path) if windows is None else windows
    rows = sum(map(len, parts))
    check_size(rows * math.prod(fitted.row_shape) * dtype.itemsize)
    columns: list[Column] = []

    def add(name: str, row_shape: Shape, made: Callable[[range], Array], size: int) -> None:
        file = directory / f"{len(columns)}.npy"
        _write(file, rows, row_shape, (made(piece) for piece in in_pieces(parts, max(size, 1))))
        columns.append(describe(name, read_column(directory, len(columns))))

    def link(name: str) -> None:
        number = dataset.column(name)
        if number is not None:
            os.link(source / f"{number}.npy", directory / f"{len(columns)}.npy")
            columns.append(dataset.columns[number])

    if fitted.inputs:
        numbers = {name: dataset.column(name) for name in fitted.columns}
        arrays = {name: read_column(source, number) for name, number in numbers.items() if number is not None}
        size = NUMBERS_AT_ONCE // max(math.prod(fitted.row_shape), 1)
        add(roles.inputs, fitted.row_shape, lambda piece: _inputs(fitted, arrays, piece, dtype), size)
    else:
        link(roles.inputs)
    number = dataset.column(roles.targets)
    if number is not None and (fitted.target or fitted.windows):
        targets = read_column(source, number)
        several = (fitted.windows.targets,) if fitted.windows and fitted.windows.targets > 1 else ()
        shape = (*several, *targets.shape[1:])
        try:
            add(
                roles.targets,
                shape,
                lambda piece: _targets(fitted, targets, piece).reshape(-1, *shape),
                NUMBERS_AT_ONCE // max(math.prod(shape), 1),
            )
        except NotPreparable as error:
            raise InvalidArgument.of(f"{path}.target_column".lstrip("."), str(error)) from error
    else:
        link(roles.targets)
    if roles.weights:
        link(roles.weights)
    made = replace(dataset, rows=rows, columns=tuple(columns), preparation_json=fitted.to_json())
    write_description(directory, made)
    return made


def _all(fitted: FittedPreparation, dataset: Dataset, path: str) -> tuple[range, ...]:
    """Every row, or every window."""
    windows = fitted.windows
    if windows is None:
        return (range(dataset.rows),)
    if not windows.count(dataset.rows):
        raise InvalidArgument.of(
            f"{path}.dataset".lstrip("."),
            f"{dataset.name} has {dataset.rows:,} rows; a window and its target take {windows.span:,}",
        )
    return (range(windows.count(dataset.rows)),)


def _inputs(
    fitted: FittedPreparation, columns: Mapping[str, Array], piece: range, dtype: np.dtype[np.floating]
) -> Array:
    """Some inputs, (rows, *row_shape)."""
    if fitted.windows is None:
        return prepare(fitted, {name: column[piece.start : piece.stop] for name, column in columns.items()}, dtype)
    stop = piece.stop + fitted.windows.length - 1
    rows = prepare(fitted, {name: column[piece.start : stop] for name, column in columns.items()}, dtype)
    return fitted.windows.inputs(rows, range(len(piece)))


def _targets(fitted: FittedPreparation, column: Array, piece: range) -> Array:
    """Their targets, with as many numbers as those of the column. Raises NotPreparable."""
    values = fitted.windows.outcomes(column, piece) if fitted.windows else column[piece.start : piece.stop]
    return fitted.target.apply(values.reshape(-1, *column.shape[1:])) if fitted.target else values


def _write(path: Path, rows: int, row_shape: Shape, blocks: Iterator[Array]) -> None:
    """Blocks of rows, one after the other, as one array."""
    with path.open("wb") as file:
        for number, block in enumerate(blocks):
            if number == 0:
                header = {
                    "descr": np.lib.format.dtype_to_descr(block.dtype),
                    "fortran_order": False,
                    "shape": (rows, *row_shape),
                }
                np.lib.format.write_array_header_2_0(file, header)
            file.write(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
