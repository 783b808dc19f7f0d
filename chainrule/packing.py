"""One file out of several: columns that lie in files or arrays of their own, packed for an upload.

The result is what numpy.savez writes, a zip with one member a column, except that a member may also be an IDX file as
it is, gzip or not (x.idx.gz), which the service unpacks: the files of MNIST are sent as small as they lie on the disk.
The same columns give the same bytes, so that an upload that broke off is found again.
"""

import gzip
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from chainrule.errors import DatasetFileError

Columns: TypeAlias = Mapping[str, Path | npt.NDArray[Any]]
"""The file or array of every column, by its name."""

Source: TypeAlias = Path | bytes | Columns
"""What a dataset can be uploaded from: a file, a file's bytes, or columns."""

_OLDEST = (1980, 1, 1, 0, 0, 0)
"""The time of every member: the oldest that a zip can hold."""


@contextmanager
def packed(source: Source) -> Iterator[Path | bytes]:
    """The file to upload for a source; one that had to be made is gone afterwards.

    Raises DatasetFileError for what can be no column, OSError if a file cannot be read.
    """
    if isinstance(source, Path | bytes):
        yield source
        return
    with TemporaryDirectory(prefix="chainrule-") as folder:
        path = Path(folder, "columns.npz")
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, column in source.items():
                _add(archive, name, column)
        yield path


def _add(archive: zipfile.ZipFile, name: str, column: Path | npt.NDArray[Any]) -> None:
    if isinstance(column, Path):
        member = zipfile.ZipInfo(name + _suffix(name, column), _OLDEST)
        with column.open("rb") as source, archive.open(member, "w", force_zip64=True) as target:
            shutil.copyfileobj(source, target, 1 << 20)
        return
    array = np.asarray(column)
    if array.dtype.hasobject:
        raise DatasetFileError(f"column {name!r} holds Python objects; must be an array of numbers")
    with archive.open(zipfile.ZipInfo(f"{name}.npy", _OLDEST), "w", force_zip64=True) as target:
        np.lib.format.write_array(target, array, allow_pickle=False)


def _suffix(name: str, path: Path) -> str:
    """What a file is, by its first bytes."""
    with path.open("rb") as file:
        start = file.read(6)
    if start == b"\x93NUMPY":
        return ".npy"
    if _is_idx(start):
        return ".idx"
    if start[:2] == b"\x1f\x8b":
        try:
            with gzip.open(path) as unpacked:
                if _is_idx(unpacked.read(4)):
                    return ".idx.gz"
        except (EOFError, OSError, zlib.error) as error:
            raise DatasetFileError(f"{name}={path}: is a gzip file that is cut off or damaged") from error
    raise DatasetFileError(
        f"{name}={path}: a column's own file must be .npy or IDX (as MNIST's files are, also gzip); "
        "a table or an .npz has all columns in it, and is uploaded alone"
    )


def _is_idx(start: bytes) -> bool:
    return start[:2] == b"\0\0" and start[2:3] in (b"\x08", b"\x09", b"\x0b", b"\x0c", b"\x0d", b"\x0e")
