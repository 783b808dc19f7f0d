"""Reads IDX, the format of MNIST and its successors, without trusting it.

A file is one array: two zero bytes, the element type, the number of axes, the length of each axis as four bytes, then
the elements; all of it big-endian (http://yann.lecun.com/exdb/mnist, "the IDX file format").
"""

import math
import struct
from pathlib import Path

import numpy as np

from service.data.reading import Columns, Reading, refuse, refuse_groups
from worker.arrays import Array

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""The element types by their number: ubyte, byte, short, int, float, double."""

ALONE = "x"
"""The name of the only column, where a file is a dataset of its own."""


def read_idx(path: Path, reading: Reading) -> Columns:
    """The array of an IDX file as the column "x". Raises InvalidArgument."""
    refuse_groups(reading)
    yield ALONE, map_idx(path, ALONE)


def map_idx(path: Path, name: str) -> Array:
    """The array of an IDX file, mapped into memory. Raises InvalidArgument, naming the column.

    The size that the header declares must be the file's own, to the byte, before anything is mapped.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(4)
        if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in TYPES:
            raise refuse(f"column {name!r} does not begin as an IDX file: two zero bytes, the type, the number of axes")
        axes = start[3]
        lengths = file.read(4 * axes)
    if len(lengths) != 4 * axes:
        raise refuse(f"column {name!r} ends within its header, which says it has {axes} axes")
    shape = struct.unpack(f">{axes}I", lengths)
    if not 1 <= axes <= 32 or min(shape) < 1:
        raise refuse(
            f"column {name!r} has the shape {str(shape)[:100]}; "
            "must have a row axis first, nothing empty, and at most 32 axes"
        )
    dtype = np.dtype(TYPES[start[2]])
    declared, there = dtype.itemsize * math.prod(shape), size - 4 - 4 * axes
    if declared != there:
        raise refuse(f"column {name!r} says it has {declared:,} bytes, but {there:,} are there")
    return np.memmap(path, dtype, "r", 4 + 4 * axes, shape)
