"""Reads the bytes of a file as the service would, in a workspace of its own."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from service.data.formats import Format, read
from service.data.reading import Columns, Group, Reading
from service.errors import InvalidArgument
from tests.unit.service.hostile import LIMIT
from worker.arrays import Array

Read = Callable[[Path, Format | None, Reading], Columns]


def in_place(path: Path, known: Format | None, reading: Reading) -> Columns:
    """As the service does."""
    return read(path, known, reading)[1]


def columns(
    data: bytes, *groups: tuple[str, str], limit: int = LIMIT, known: Format | None = None, by: Read = in_place
) -> dict[str, Array]:
    """The columns of a file, copied; a group is its name and its columns with commas."""
    gathered = tuple(Group(name, tuple(columns.split(","))) for name, columns in groups)
    with TemporaryDirectory() as directory:
        path, workspace = Path(directory, "file"), Path(directory, "workspace")
        path.write_bytes(data)
        workspace.mkdir()
        return {name: np.array(array) for name, array in by(path, known, Reading(limit, workspace, gathered))}


def refusal(
    data: bytes, *groups: tuple[str, str], limit: int = LIMIT, known: Format | None = None, by: Read = in_place
) -> str:
    """What is said of a file that must be refused."""
    with pytest.raises(InvalidArgument) as refused:
        columns(data, *groups, limit=limit, known=known, by=by)
    (violation,) = refused.value.violations
    assert (violation.field, refused.value.reason) == ("chunk", "BAD_DATASET")
    assert len(violation.description) < 500
    return violation.description


def read_or_refuse(data: bytes, *groups: tuple[str, str], known: Format | None = None, by: Read = in_place) -> None:
    """Reads what may be sound or broken; nothing else than those two may happen."""
    try:
        found = columns(data, *groups, known=known, by=by)
    except InvalidArgument:
        return
    assert len({len(array) for array in found.values()}) == 1
    assert sum(array.nbytes for array in found.values()) <= LIMIT
