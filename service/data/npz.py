"""Reads NumPy's npz without trusting it.

An npz is a zip of npy files. Before a byte is unpacked, the sizes that the zip's directory and each array's header
declare are held against the limit and against each other, so that a small file cannot become a large one. Arrays of
objects, which are pickles and could run code, are refused.
"""

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from service.errors import InvalidArgument
from worker.arrays import Array

MOST_COLUMNS = 1_000
LONGEST_NAME = 100
HEADER_BYTES = 10_000
FIELD = "chunk"
"""What an error about the content of an upload is reported for."""


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
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        # RuntimeError is what zipfile raises for an encrypted member, NotImplementedError for an unknown compression.
        raise _refuse("is not a readable npz file (a zip of npy arrays, as numpy.savez writes)") from error


def _check_directory(members: list[zipfile.ZipInfo], most_bytes: int) -> None:
    if not 1 <= len(members) <= MOST_COLUMNS:
        raise _refuse(f"has {len(members)} arrays; must have 1 to {MOST_COLUMNS:,}")
    names = [member.filename.removesuffix(".npy") for member in members]
    for member, name in zip(members, names, strict=True):
        if not member.filename.endswith(".npy") or not name.isprintable() or not 1 <= len(name) <= LONGEST_NAME:
            raise _refuse(f"has a member {member.filename[:LONGEST_NAME]!r}; every member must be an array, <name>.npy")
    if len(set(names)) < len(names):
        raise _refuse("has two arrays of the same name")
    total = sum(member.file_size for member in members)
    if total > most_bytes:
        raise _refuse(f"unpacks to {total:,} bytes; must be at most {most_bytes:,}")


def _read_array(file: IO[bytes], name: str, declared: int) -> Array:
    shape, fortran, dtype, header = _read_header(file, name)
    if dtype.hasobject:
        raise _refuse(f"column {name!r} holds Python objects (pickles); store numbers")
    if dtype.kind not in "fiub" or dtype.itemsize > 8:
        raise _refuse(f"column {name!r} has the type {dtype}; must be float, integer or bool of at most 64 bits")
    if not shape or min(shape) < 1:
        raise _refuse(f"column {name!r} has the shape {shape}; must have a row axis first, and nothing empty")
    size = dtype.itemsize
    for length in shape:
        size *= length
    if header + size != declared:
        raise _refuse(f"column {name!r} says it has {size:,} bytes, but {declared - header:,} are there")
    data = file.read(size)
    if len(data) != size:
        raise _refuse(f"column {name!r} is cut off after {len(data):,} of {size:,} bytes")
    array = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    return np.ascontiguousarray(array, dtype.newbyteorder("="))


def _read_header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[np.generic], int]:
    """Shape, whether it lies in Fortran order, element type, and the bytes read."""
    try:
        version = npy.read_magic(file)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, fortran, dtype = read(file, max_header_size=HEADER_BYTES)
    except (ValueError, KeyError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise _refuse(f"column {name!r} does not begin with a npy header that can be read") from error
    return shape, fortran, dtype, file.tell()


def _refuse(problem: str) -> InvalidArgument:
    return InvalidArgument.of(FIELD, problem, reason="BAD_DATASET")
