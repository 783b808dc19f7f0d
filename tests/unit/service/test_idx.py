"""Reading IDX files without trusting them."""

import gzip
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.data.formats import Format
from tests.unit.service.breaking import broken
from tests.unit.service.hostile import LIMIT
from tests.unit.service.reading import columns, read_or_refuse, refusal
from worker.arrays import Array

TYPES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx(array: Array) -> bytes:
    """As the description of the format says, written without the reader."""
    kind = TYPES[array.dtype.str[1:]]
    return header(kind, *array.shape) + array.astype(array.dtype.newbyteorder(">")).tobytes()


def header(kind: int, *shape: int, axes: int | None = None) -> bytes:
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, kind, len(shape) if axes is None else axes, *shape)


@given(
    arrays.arrays(st.sampled_from(list(TYPES)).map(np.dtype), arrays.array_shapes(max_dims=4, max_side=4)),
    st.booleans(),
)
def test_an_array_comes_as_it_was(array: Array, packed: bool) -> None:
    data = idx(array)
    (found,) = columns(gzip.compress(data) if packed else data).values()
    assert found.dtype.newbyteorder("=") == array.dtype
    np.testing.assert_array_equal(found, array)


GOOD = idx(np.arange(12, dtype=np.uint8).reshape(3, 2, 2))

HOSTILE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "does not begin as an IDX file"),
    "zeros": (bytes(100), "does not begin as an IDX file"),
    "a type that is none": (header(0x0A, 3) + bytes(3), "does not begin as an IDX file"),
    "no axes": (header(8), "has the shape (); must have a row axis first"),
    "no rows": (header(8, 0, 3), "has the shape (0, 3); must have a row axis first, nothing empty"),
    "a header cut off": (header(8, 3)[:-1], "ends within its header, which says it has 1 axes"),
    "more axes than lengths": (header(8, 3, axes=255), "ends within its header, which says it has 255 axes"),
    "more axes than there can be": (header(8, *[1] * 33) + b"\0", "at most 32 axes"),
    "cut off": (GOOD[:-1], "says it has 12 bytes, but 11 are there"),
    "too long": (GOOD + b"\0", "says it has 12 bytes, but 13 are there"),
    "a shape beyond all memory": (header(14, *[2**32 - 1] * 30), "bytes, but 0 are there"),
    "gzip cut off": (gzip.compress(GOOD)[:-4], "is a gzip file that is cut off or damaged"),
    "gzip with a wrong sum": (gzip.compress(GOOD)[:-8] + bytes(8), "is a gzip file that is cut off or damaged"),
    "a bomb": (gzip.compress(header(8, 10**7) + bytes(10**7)), f"unpacks to more than {LIMIT:,} bytes"),
    "gzip of gzip": (gzip.compress(gzip.compress(GOOD)), "is gzip inside gzip"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_refused(name: str) -> None:
    data, told = HOSTILE[name]
    assert told in refusal(data, known=Format.IDX)


def test_there_is_nothing_to_gather() -> None:
    assert "so that group 'y' can gather nothing" in refusal(GOOD, ("y", "x"))


@settings(max_examples=40)
@given(st.sampled_from([GOOD, idx(np.ones((2, 3))), gzip.compress(GOOD)]).flatmap(broken))
def test_a_broken_file_is_read_or_refused(data: bytes) -> None:
    read_or_refuse(data, known=Format.IDX)
    read_or_refuse(data)
