"""Reading Parquet and Arrow files without trusting them."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.data.apart import ReadingProcess
from service.data.formats import Format, read, sniff
from service.data.reading import Columns, Reading
from service.errors import InvalidArgument
from tests.unit.service.breaking import broken
from tests.unit.service.hostile import LIMIT
from tests.unit.service.reading import columns, read_or_refuse, refusal


def parquet(table: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file, **options)
    return file.getvalue()


def arrow(table: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    pyarrow.feather.write_feather(table, file, **options)
    return file.getvalue()


WRITERS: dict[str, Callable[..., bytes]] = {"parquet": parquet, "arrow": arrow}
every_writer = pytest.mark.parametrize("write", WRITERS.values(), ids=list(WRITERS))


class Apart:
    """Reads as the service does, in a process apart, but in one for many files."""

    def __init__(self) -> None:
        self.processes: list[ReadingProcess] = []

    def __call__(self, path: Path, known: Format | None, reading: Reading) -> Columns:
        found = known or sniff(path)
        if found not in (Format.PARQUET, Format.ARROW):
            return read(path, found, reading)[1]
        if not self.processes:
            self.processes.append(ReadingProcess(10**7))
        try:
            layout = self.processes[0].lay_out(found.value, path, reading)
        except InvalidArgument:
            if not self.processes[0].alive:
                self.close()
            raise
        return layout.map(reading.workspace)

    def close(self) -> None:
        while self.processes:
            self.processes.pop().close()


@pytest.fixture(scope="module")
def apart() -> Iterator[Apart]:
    made = Apart()
    yield made
    made.close()


LISTS = pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, None]], pa.list_(pa.float32(), 2))
TABLE = pa.table(
    {
        "a": pa.array([1, 2, 3], pa.int8()),
        "b": pa.array([0.5, None, 1.5]),
        "c": [True, False, True],
        "d": ["x", None, "yz"],
        "e": LISTS,
    }
)


@every_writer
def test_every_type(write: Callable[..., bytes], apart: Apart) -> None:
    found = columns(write(TABLE), by=apart)
    assert {name: array.dtype.str.lstrip("<|") for name, array in found.items()} == {
        "a": "i1",
        "b": "f8",
        "c": "b1",
        "d": "U2",
        "e": "f4",
    }
    assert (found["a"].tolist(), found["c"].tolist()) == ([1, 2, 3], [True, False, True])
    np.testing.assert_array_equal(found["b"], [0.5, np.nan, 1.5])
    assert found["d"].tolist() == ["x", "", "yz"]
    np.testing.assert_array_equal(found["e"], [[1, 2], [3, 4], [5, np.nan]])


@every_writer
def test_lists_of_lists_and_groups(write: Callable[..., bytes], apart: Apart) -> None:
    images = pa.array([[[1, 2], [3, 4]], [[5, 6], [7, 8]]], pa.list_(pa.list_(pa.uint8(), 2), 2))
    found = columns(write(pa.table({"image": images, "a": [1, 2], "b": [3.5, 4.5]})), ("x", "b,a"), by=apart)
    assert found["image"].dtype == np.uint8
    assert found["image"].tolist() == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    assert found["x"].tolist() == [[3.5, 1], [4.5, 2]]
    assert "has lists in column 'image'" in refusal(
        write(pa.table({"image": images, "a": [1, 2]})), ("x", "image,a"), by=apart
    )


@every_writer
def test_many_batches(write: Callable[..., bytes], apart: Apart) -> None:
    values = np.arange(50_000)
    options = {"row_group_size": 7_000} if write is parquet else {"chunksize": 7_000}
    found = columns(write(pa.table({"a": values, "s": values.astype(str)}), **options), limit=10**7, by=apart)
    np.testing.assert_array_equal(found["a"], values)
    np.testing.assert_array_equal(found["s"], values.astype(str))


REFUSED: dict[str, tuple[Any, str]] = {
    "no rows": (pa.table({"a": pa.array([], pa.int64())}), "has no rows"),
    "no columns": (pa.table({}), "has no rows"),
    "a missing integer": (pa.table({"a": [1, None]}), "has 1 missing values in column 'a' of type int64; only floats"),
    "a missing truth value": (pa.table({"a": [True, None]}), "has 1 missing values in column 'a' of type bool"),
    "a missing list": (
        pa.table({"a": pa.array([[1.0], None], pa.list_(pa.float32(), 1))}),
        "has 1 missing values in column 'a'",
    ),
    "lists of any length": (pa.table({"a": [[1], [2, 3]]}), "in column 'a'; must be numbers, truth values, text, or"),
    "lists of text": (pa.table({"a": pa.array([["x"]], pa.list_(pa.string(), 1))}), "in column 'a'; must be numbers"),
    "dates": (pa.table({"a": pa.array([0], pa.timestamp("ms"))}), "has the type 'timestamp[ms]' in column 'a'"),
    "bytes": (pa.table({"a": [b"x"]}), "has the type 'binary' in column 'a'"),
    "structures": (pa.table({"a": [{"b": 1}]}), "has the type 'struct<b: int64>' in column 'a'"),
    "decimals": (pa.table({"a": pa.array([1], pa.decimal128(5))}), "has the type 'decimal128(5, 0)' in column 'a'"),
    "a long text": (
        pa.table({"a": ["x" * 10_001]}),
        "has a text of 10,001 characters in column 'a'; must have at",
    ),
    "a zero in a text": (pa.table({"a": ["x\0y"]}), "has a zero character in column 'a'"),
    "a name with a line break": (pa.table({"a\nb": [1]}), "has a column 'a\\nb'"),
    "a bomb": (pa.table({"a": np.zeros(10**6)}), f"bytes; must be at most {LIMIT:,}"),
}


@every_writer
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, write: Callable[..., bytes], apart: Apart) -> None:
    table, told = REFUSED[name]
    assert told in refusal(write(table), by=apart)


def test_two_columns_of_a_name(apart: Apart) -> None:
    table = pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])
    assert "has two columns of the same name" in refusal(parquet(table), by=apart)


@pytest.mark.parametrize("known", [Format.PARQUET, Format.ARROW])
def test_what_is_something_else(known: Format, apart: Apart) -> None:
    good = parquet(TABLE) if known == Format.PARQUET else arrow(TABLE)
    for data in (b"", b"PAR1", b"ARROW1", b"a,b\n1,2\n", good[: len(good) // 2], good[:-1], good[20:]):
        assert "is not a readable" in refusal(data, known=known, by=apart)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(
        [
            parquet(TABLE.slice(0, 2)),
            parquet(pa.table({"a": [1, 2]}), compression="none", use_dictionary=False),
            arrow(pa.table({"a": [1, 2], "s": ["x", "y"]}), compression="uncompressed"),
            arrow(pa.table({"a": [1.5, 2]})),
        ]
    ).flatmap(broken)
)
def test_a_broken_file_is_read_or_refused(apart: Apart, data: bytes) -> None:
    read_or_refuse(data, by=apart)


def test_a_file_that_crashes_the_reader(tmp_path: Path) -> None:
    """pyarrow's own crashes are mended one day; so here the process is ended for it while it reads."""
    reading = Reading(LIMIT, tmp_path)
    with ReadingProcess(LIMIT) as process:
        process.crash()
        with pytest.raises(InvalidArgument, match="is not a readable Parquet file"):
            process.lay_out("parquet", tmp_path / "file", reading)


def test_the_service_reads_apart() -> None:
    assert columns(parquet(TABLE))["a"].tolist() == [1, 2, 3]
    assert "has no rows" in refusal(arrow(TABLE.slice(0, 0)))
