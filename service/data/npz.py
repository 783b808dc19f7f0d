"""Reads NumPy's npz without trusting it.

An npz is a zip of npy files. Before a byte is unpacked, the sizes that the zip's directory and each array's header
declare are held against the limit and against each other, so that a small file cannot become a large one. Arrays of
objects, which are pickles and could run code, are refused.
"""

import ast
import math
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from service.errors import InvalidArgument
from worker.arrays import Array, Shape

MOST_COLUMNS = 1_000
MOST_AXES = 32
LONGEST_NAME = 100
HEADER_BYTES = 10_000
FIELD = "chunk"
"""What an error about the content of an upload is reported for."""

MAGIC = b"\x93NUMPY"
LENGTHS = {b"\x01\x00": 2, b"\x02\x00": 4, b"\x03\x00": 4}
"""In how many bytes each version of the npy format says how long its header is."""

_NUMBERS = re.compile(r"[|<>=]?(b1|[iu][1248]|f[248])")


def read_npz(path: Path, most_bytes: int) -> Iterator[tuple[str, Array]]:
    """The arrays of an npz file, one at a time. Raises InvalidArgument."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_directory(members, most_bytes)
            rows: int | None = None
            for member in members:
                name = member.filename.removesuffix(".npy")
                with archive.open(member) as file:
                    array = _read_array(file, name, member.file_size)
                if rows is not None and len(array) != rows:
                    raise _refuse(f"column {name!r} has {len(array)} rows, but the one before it has {rows}")
                rows = len(array)
                yield name, array
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError, ValueError) as error:
        # RuntimeError is what zipfile raises for an encrypted member, ValueError for a name or a place that can't be.
        raise _refuse("is not a readable npz file (a zip of npy arrays, as numpy.savez writes)") from error


def _check_directory(members: list[zipfile.ZipInfo], most_bytes: int) -> None:
    if not 1 <= len(members) <= MOST_COLUMNS:
        raise _refuse(f"has {len(members)} arrays; must have 1 to {MOST_COLUMNS:,}")
    names = [member.filename.removesuffix(".npy") for member in members]
    for member, name in zip(members, names, strict=True):
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _refuse("is compressed in a way that numpy.savez_compressed does not use")
        if not member.filename.endswith(".npy") or not name.isprintable() or not 1 <= len(name) <= LONGEST_NAME:
            raise _refuse(f"has a member {member.filename[:LONGEST_NAME]!r}; every member must be an array, <name>.npy")
    if len(set(names)) < len(names):
        raise _refuse("has two arrays of the same name")
    total = sum(member.file_size for member in members)
    if total > most_bytes:
        raise _refuse(f"unpacks to {total:,} bytes; must be at most {most_bytes:,}")


def _read_array(file: IO[bytes], name: str, declared: int) -> Array:
    shape, fortran, descr, header = _read_header(file, name)
    if descr.lstrip("|<>=").startswith("O"):
        raise _refuse(f"column {name!r} holds Python objects (pickles); store numbers")
    if not _NUMBERS.fullmatch(descr):
        raise _refuse(
            f"column {name!r} has the type {descr[:100]!r}; must be float, integer or bool of at most 64 bits"
        )
    if not 1 <= len(shape) <= MOST_AXES or min(shape) < 1:
        raise _refuse(
            f"column {name!r} has the shape {str(shape)[:100]}; "
            f"must have a row axis first, nothing empty, and at most {MOST_AXES} axes"
        )
    dtype = np.dtype(descr)
    size = dtype.itemsize * math.prod(shape)
    if header + size != declared:
        raise _refuse(f"column {name!r} says it has {size:,} bytes, but {declared - header:,} are there")
    data = file.read(size)
    if len(data) != size:
        raise _refuse(f"column {name!r} is cut off after {len(data):,} of {size:,} bytes")
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
        raise _refuse(f"column {name!r} does not begin with a npy header that can be read") from error


def _refuse(problem: str) -> InvalidArgument:
    return InvalidArgument.of(FIELD, problem, reason="BAD_DATASET")
