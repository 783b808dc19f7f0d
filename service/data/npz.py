"""Reads NumPy's npz without trusting it, and zips of IDX files beside.

An npz is a zip of npy files, one a column. A member may also be an IDX file, plain or gzip (x.idx, x.idx.gz): so the
images and the labels of MNIST, which are files of their own, become one dataset. Before a byte is unpacked, the sizes
that the zip's directory and each array's header declare are held against the limit and against each other, so that a
small file cannot become a large one. Arrays of objects, which are pickles and could run code, are refused.
"""

import ast
import errno
import math
import re
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from service.data.gzip_file import unpack
from service.data.idx import map_idx
from service.data.reading import (
    LONGEST_NAME,
    MOST_COLUMNS,
    Columns,
    Reading,
    is_column_name,
    refuse,
    refuse_groups,
    spool,
)
from worker.arrays import Array, Shape

MOST_AXES = 32
HEADER_BYTES = 10_000

SUFFIXES = (".npy", ".idx", ".idx.gz")
"""Of members: what a column's name is followed by."""

MAGIC = b"\x93NUMPY"
LENGTHS = {b"\x01\x00": 2, b"\x02\x00": 4, b"\x03\x00": 4}
"""In how many bytes each version of the npy format says how long its header is."""

NO_NPZ = "is not a readable npz file (a zip of npy arrays, as numpy.savez writes)"

_NUMBERS = re.compile(r"[|<>=]?(b1|[iu][1248]|f[248])")


def read_npz(path: Path, reading: Reading) -> Columns:
    """The arrays of an npz file, one at a time. Raises InvalidArgument."""
    refuse_groups(reading)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_directory(members, reading.most_bytes)
            rows: int | None = None
            for member in members:
                name, suffix = _parts(member)
                array = _read_member(archive, member, suffix, name, reading)
                if rows is not None and len(array) != rows:
                    raise refuse(f"column {name!r} has {len(array)} rows, but the one before it has {rows}")
                rows = len(array)
                yield name, array
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        # RuntimeError is what zipfile raises for an encrypted member, ValueError for a name or a place that can't be.
        raise refuse(NO_NPZ) from error
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # the disk's, not the file's
            raise
        raise refuse(NO_NPZ) from error


def _check_directory(members: list[zipfile.ZipInfo], most_bytes: int) -> None:
    if not 1 <= len(members) <= MOST_COLUMNS:
        raise refuse(f"has {len(members)} arrays; must have 1 to {MOST_COLUMNS:,}")
    for member in members:
        name, suffix = _parts(member)
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise refuse("is compressed in a way that numpy.savez_compressed does not use")
        if not suffix or not is_column_name(name):
            raise refuse(
                f"has a member {member.filename[:LONGEST_NAME]!r}; "
                "every member must be an array, <name>.npy, or <name>.idx or <name>.idx.gz"
            )
    if len({_parts(member)[0] for member in members}) < len(members):
        raise refuse("has two arrays of the same name")
    total = sum(member.file_size for member in members)
    if total > most_bytes:
        raise refuse(f"unpacks to {total:,} bytes; must be at most {most_bytes:,}")


def _parts(member: zipfile.ZipInfo) -> tuple[str, str]:
    """A member's column and its suffix, "" if it has none that a column has."""
    suffix = next((suffix for suffix in SUFFIXES if member.filename.endswith(suffix)), "")
    return member.filename.removesuffix(suffix), suffix


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, suffix: str, name: str, reading: Reading) -> Array:
    with archive.open(member) as file:
        if suffix == ".npy":
            return _read_array(file, name, member.file_size)
        path = reading.workspace / "member"
        # A new file every time: the array before may still be mapped to the old one.
        path.unlink(missing_ok=True)
        spool(file, path, reading.most_bytes)
    if suffix == ".idx.gz":
        unpacked = reading.workspace / "member.idx"
        unpacked.unlink(missing_ok=True)
        path = unpack(path, unpacked, reading.most_bytes)
    return map_idx(path, name)


def _read_array(file: IO[bytes], name: str, declared: int) -> Array:
    shape, fortran, descr, header = _read_header(file, name)
    if descr.lstrip("|<>=").startswith("O"):
        raise refuse(f"column {name!r} holds Python objects (pickles); store numbers")
    if not _NUMBERS.fullmatch(descr):
        raise refuse(f"column {name!r} has the type {descr[:100]!r}; must be float, integer or bool of at most 64 bits")
    if not 1 <= len(shape) <= MOST_AXES or min(shape) < 1:
        raise refuse(
            f"column {name!r} has the shape {str(shape)[:100]}; "
            f"must have a row axis first, nothing empty, and at most {MOST_AXES} axes"
        )
    dtype = np.dtype(descr)
    size = dtype.itemsize * math.prod(shape)
    if header + size != declared:
        raise refuse(f"column {name!r} says it has {size:,} bytes, but {declared - header:,} are there")
    data = file.read(size)
    if len(data) != size:
        raise refuse(f"column {name!r} is cut off after {len(data):,} of {size:,} bytes")
    array = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    return np.ascontiguousarray(array, dtype.newbyteorder("="))


def _read_header(file: IO[bytes], name: str) -> tuple[Shape, bool, str, int]:
    """Shape, whether it lies in Fortran order, the element type's description, and the bytes read.

    NumPy's own reader is not used: it takes a header of any length into memory, mends what it can't parse, and lets
    every description of a type through to `numpy.dtype`.
    """
    try:
        start = file.read(len(MAGIC) + 2)
        if not start.startswith(MAGIC) or start[len(MAGIC) :] not in LENGTHS:
            raise ValueError
        length_bytes = LENGTHS[start[len(MAGIC) :]]
        length = int.from_bytes(file.read(length_bytes), "little")
        if length > HEADER_BYTES:
            raise ValueError
        match ast.literal_eval(file.read(length).decode("latin-1")):
            case {"shape": tuple(shape), "fortran_order": bool(fortran), "descr": descr} if all(
                type(n) is int for n in shape
            ):
                return shape, fortran, str(descr), len(start) + length_bytes + length
        raise ValueError
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise refuse(f"column {name!r} does not begin with a npy header that can be read") from error
