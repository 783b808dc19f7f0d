"""Writes what was prepared as a dataset in a directory of its own, which is read as any other.

Columns that are taken as they are cost nothing: they are links to the same files.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from service.data.columns import Column, describe
from service.data.datasets import Dataset, read_column, write_description
from service.data.features import NotPreparable
from service.data.preparation import FittedPreparation, prepare
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
) -> Dataset:
    """Makes a dataset of the columns that have a role, of one that lies in `source`.

    `check_size` is told how many bytes it will take. Raises InvalidArgument, naming fields below `path`, or OSError.
    """
    check_size(dataset.rows * fitted.width * dtype.itemsize)
    columns: list[Column] = []

    def add(name: str, row_shape: Shape, blocks: Iterator[Array]) -> None:
        file = directory / f"{len(columns)}.npy"
        _write(file, dataset.rows, row_shape, blocks)
        columns.append(describe(name, read_column(directory, len(columns))))

    def link(name: str) -> None:
        number = dataset.column(name)
        if number is not None:
            os.link(source / f"{number}.npy", directory / f"{len(columns)}.npy")
            columns.append(dataset.columns[number])

    if fitted.inputs:
        numbers = {name: dataset.column(name) for name in fitted.columns}
        arrays = {name: read_column(source, number) for name, number in numbers.items() if number is not None}
        size = max(NUMBERS_AT_ONCE // max(fitted.width, 1), 1)
        add(
            roles.inputs,
            fitted.row_shape,
            (
                prepare(fitted, {name: array[start : start + size] for name, array in arrays.items()}, dtype)
                for start in range(0, dataset.rows, size)
            ),
        )
    else:
        link(roles.inputs)
    if fitted.target:
        targets, apply = read_column(source, dataset.column(roles.targets) or 0), fitted.target.apply
        try:
            add(
                roles.targets,
                targets.shape[1:],
                (
                    apply(targets[start : start + NUMBERS_AT_ONCE]).reshape(-1, *targets.shape[1:])
                    for start in range(0, dataset.rows, NUMBERS_AT_ONCE)
                ),
            )
        except NotPreparable as error:
            raise InvalidArgument.of(f"{path}.target_column".lstrip("."), str(error)) from error
    else:
        link(roles.targets)
    if roles.weights:
        link(roles.weights)
    made = replace(dataset, columns=tuple(columns), preparation_json=fitted.to_json())
    write_description(directory, made)
    return made


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
