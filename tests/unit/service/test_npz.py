"""Reading npz files without trusting them."""

import gzip
import io
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.data.npz import read_npz
from service.data.reading import Reading
from service.errors import InvalidArgument
from tests.unit.service.breaking import broken
from tests.unit.service.hostile import GOOD, HOSTILE, LIMIT, archive, npy, npz, of, raw_npy
from worker.arrays import Array


def read(data: bytes, limit: int = LIMIT) -> dict[str, Array]:
    with TemporaryDirectory() as directory:
        path = Path(directory, "upload")
        path.write_bytes(data)
        return dict(read_npz(path, Reading(limit, Path(directory))))


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_refused(name: str) -> None:
    data, told = HOSTILE[name]
    with pytest.raises(InvalidArgument) as refused:
        read(data())
    (violation,) = refused.value.violations
    assert told in violation.description
    assert (violation.field, refused.value.reason) == ("chunk", "BAD_DATASET")
    assert len(violation.description) < 500


NUMBERS = st.sampled_from([f"{order}{kind}" for order in "<>" for kind in ("f2", "f4", "f8", "i2", "i8", "u4")])
columns = arrays.arrays(
    st.one_of(NUMBERS, st.sampled_from(["i1", "u1", "?"])).map(np.dtype),
    st.tuples(st.just(3), *([st.integers(1, 4)] * 2)).map(lambda shape: shape[: 1 + shape[1] % 3]),
)


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from("xyz"), columns, min_size=1), st.booleans(), st.booleans())
def test_arrays_come_as_they_were_in_the_order_of_the_machine(
    given: dict[str, Array], compressed: bool, fortran: bool
) -> None:
    stored = {name: np.asarray(array, order="F" if fortran else "C") for name, array in given.items()}
    found = read(npz(compressed, **stored))
    assert list(found) == list(given)
    for name, array in given.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype.newbyteorder("=")
        assert found[name].dtype.isnative
        assert found[name].flags.c_contiguous


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)], ids=str)
def test_every_version_of_the_format(version: tuple[int, int]) -> None:
    file = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # of how new the format is
        np.lib.format.write_array(file, np.arange(3), version)
    np.testing.assert_array_equal(read(of(file.getvalue()))["x"], [0, 1, 2])


ODD: dict[str, bytes] = {
    "with a comment": GOOD[:-2] + b"\x05\x00hello",
    "with something in front": b"#!/bin/sh\nexit\n" + GOOD,
    "with more keys in a header": of(raw_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), 'more': 1}")),
    "with no byte order": of(npy(descr="f4")),
    "with a path for a name": archive(("../../evil.npy", npy())),
    "with an absolute path for a name": archive(("/etc/evil.npy", npy())),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_and_does_no_harm(name: str) -> None:
    for array in read(ODD[name]).values():
        assert array.dtype.isnative
        assert array.size in (3, 6, 12)


IDX = b"\0\0\x08\x01\0\0\0\x03\x01\x02\x03"


def test_idx_files_among_the_arrays() -> None:
    data = archive(("x.idx", IDX), ("y.idx.gz", gzip.compress(IDX)), ("z.npy", npy()), ("a.b.idx", IDX))
    found = read(data)
    assert list(found) == ["x", "y", "z", "a.b"]
    for name in ("x", "y", "a.b"):
        assert found[name].tolist() == [1, 2, 3]
        assert found[name].dtype == np.uint8


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ([("x.idx", IDX), ("x.npy", npy())], "has two arrays of the same name"),
        ([("x.idx", IDX), ("x.idx.gz", gzip.compress(IDX))], "has two arrays of the same name"),
        ([("x.idx", IDX[:-1])], "column 'x' says it has 3 bytes, but 2 are there"),
        ([("x.idx", npy())], "column 'x' does not begin as an IDX file"),
        ([("x.idx.gz", IDX)], "is a gzip file that is cut off or damaged"),
        ([("x.idx.gz", gzip.compress(IDX)[:-3])], "is a gzip file that is cut off or damaged"),
        ([("x.idx.gz", gzip.compress(gzip.compress(IDX)))], "is gzip inside gzip"),
        ([("x.idx.gz", gzip.compress(bytes(10**6)))], f"unpacks to more than {LIMIT:,} bytes"),
        ([("x.idx", IDX), ("y.npy", npy((2,), data=bytes(8)))], "'y' has 2 rows, but the one before it has 3"),
        ([("x.csv", b"a\n1\n")], "every member must be an array, <name>.npy, or <name>.idx or <name>.idx.gz"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_idx_files_that_are_refused(members: list[tuple[str, bytes]], told: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        read(archive(*members))
    assert told in refused.value.message


def test_the_limit_is_for_what_comes_out() -> None:
    data = npz(True, x=np.zeros(1000, np.float32))
    assert len(data) < 1000
    assert read(data, limit=4128)["x"].nbytes == 4000
    with pytest.raises(InvalidArgument, match="unpacks to 4,128 bytes; must be at most 4,127"):
        read(data, limit=4127)


def read_or_refuse(data: bytes) -> None:
    try:
        read(data)
    except InvalidArgument:
        return


@settings(max_examples=150)
@given(st.sampled_from([GOOD, npz(True, x=np.arange(30), y=np.ones(30))]).flatmap(broken))
def test_a_broken_npz_is_read_or_refused(data: bytes) -> None:
    read_or_refuse(data)


@settings(max_examples=100)
@given(broken(npy((2, 3), data=bytes(24))))
def test_a_broken_array_is_read_or_refused(data: bytes) -> None:
    """In a zip that is sound, so that the array's own header is reached."""
    read_or_refuse(of(data))


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["<f4", "|O", ">i8"])
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3).map(tuple) | st.lists(inner, max_size=3))


@settings(max_examples=100)
@given(values, values, values, st.integers(1, 3))
def test_a_header_may_say_anything(shape: object, descr: object, order: object, version: int) -> None:
    header = repr({"descr": descr, "fortran_order": order, "shape": shape}).encode("ascii", "backslashreplace")
    read_or_refuse(of(raw_npy(header.decode(), version=version)))


@settings(max_examples=80)
@given(st.binary(max_size=300) | st.binary(max_size=100).map(lambda tail: GOOD[:30] + tail))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    read_or_refuse(data)
