"""Reading csv without trusting it: types, gathering, and what is said of a file that is wrong, with the line."""

import csv
import gzip
import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.data.formats import Format
from tests.unit.service.breaking import broken
from tests.unit.service.hostile import LIMIT
from tests.unit.service.reading import columns, read_or_refuse, refusal


def one(*cells: str) -> np.ndarray:
    """A column of these cells."""
    return columns("\n".join(["a,b", *(f"{cell},0" for cell in cells)]).encode())["a"]


TYPES: dict[str, tuple[list[str], str, list[object]]] = {
    "integers": (["1", "-2", "+3", "007"], "int64", [1, -2, 3, 7]),
    "the largest integers": (["9223372036854775807", "-9223372036854775808"], "int64", [2**63 - 1, -(2**63)]),
    "integers beyond 64 bits": (["9223372036854775808", "1"], "float64", [2.0**63, 1.0]),
    "numbers": (["1", "2.5", "-.5", "5.", "1e3", "1E-3"], "float64", [1.0, 2.5, -0.5, 5.0, 1000.0, 0.001]),
    "with blanks around": ([" 1 ", "2  "], "int64", [1, 2]),
    "a missing integer": (["1", "", "3"], "float64", [1.0, math.nan, 3.0]),
    "nothing at all": (["", " "], "float64", [math.nan, math.nan]),
    "what is no number": (["nan", "inf", "-Infinity", "NaN"], "float64", [math.nan, math.inf, -math.inf, math.nan]),
    "a number too large": (["1e999"], "float64", [math.inf]),
    "a word after numbers": (["1", "2.5", "x"], "<U3", ["1", "2.5", "x"]),
    "a word before numbers": (["x", "1", ""], "<U1", ["x", "1", ""]),
    "underscores": (["1_000"], "<U5", ["1_000"]),
    "other digits": (["\N{ARABIC-INDIC DIGIT ONE}"], "<U1", ["\N{ARABIC-INDIC DIGIT ONE}"]),
    "hexadecimal": (["0x10"], "<U4", ["0x10"]),
    "truth values": (["true", "false"], "<U5", ["true", "false"]),
    "quotes": (['"a ""b"", c"', '"d\ne"'], "<U8", ['a "b", c', "d\ne"]),
    "numbers in quotes": (['"1"', '"2"'], "int64", [1, 2]),
    "text beyond ASCII": (["\N{SNOWMAN}\N{GRINNING FACE}"], "<U2", ["\N{SNOWMAN}\N{GRINNING FACE}"]),
}


@pytest.mark.parametrize("name", TYPES)
def test_the_type_of_a_column(name: str) -> None:
    cells, dtype, values = TYPES[name]
    found = one(*cells)
    assert found.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found, np.array(values, dtype))


FORMS = {
    "plain": b"a,b\n1,2\n3,4\n",
    "without a last line break": b"a,b\n1,2\n3,4",
    "with carriage returns": b"a,b\r\n1,2\r\n3,4\r\n",
    "with a byte order mark": b"\xef\xbb\xbfa,b\n1,2\n3,4\n",
    "with quotes": b'"a","b"\n"1","2"\n3,4\n',
    "with blanks": b"a , b\n1, 2\n 3,4\n",
    "with empty lines": b"\n\na,b\n\n1,2\n\n3,4\n\n",
    "packed": gzip.compress(b"a,b\n1,2\n3,4\n"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_same(form: str) -> None:
    found = columns(FORMS[form])
    assert {name: array.tolist() for name, array in found.items()} == {"a": [1, 3], "b": [2, 4]}


def test_many_rows_in_many_blocks() -> None:
    """The type that a late row asks for holds for the whole column."""
    rows = 40_000
    data = "a,b,c\n" + "".join(f"{n},{n}.5,w{n % 7}\n" for n in range(rows)) + ",x,y\n"
    found = columns(data.encode(), limit=10**7)
    np.testing.assert_array_equal(found["a"], [*range(rows), np.nan])
    assert (found["b"][7], found["b"][-1], found["c"][-2]) == ("7.5", "x", f"w{(rows - 1) % 7}")


TABLE = b"kind,a,b,c\n1,0.5,2,x\n0,1.5,3,y\n"


GATHERED: dict[str, dict[str, tuple[str, object]]] = {
    "x=a,b": {"x": ("f8", [[0.5, 2], [1.5, 3]]), "kind": ("i8", [1, 0]), "c": ("U1", ["x", "y"])},
    "x=kind,b": {"x": ("i8", [[1, 2], [0, 3]]), "a": ("f8", [0.5, 1.5]), "c": ("U1", ["x", "y"])},
    "x=b,a y=kind z=c": {"x": ("f8", [[2, 0.5], [3, 1.5]]), "y": ("i8", [1, 0]), "z": ("U1", ["x", "y"])},
    "y=kind x=*": {"y": ("i8", [1, 0]), "x": ("f8", [[0.5, 2], [1.5, 3]]), "c": ("U1", ["x", "y"])},
    "x=b,*": {"x": ("f8", [[2, 1, 0.5], [3, 0, 1.5]]), "c": ("U1", ["x", "y"])},
    "y=kind,a x=*": {"y": ("f8", [[1, 0.5], [0, 1.5]]), "x": ("i8", [[2], [3]]), "c": ("U1", ["x", "y"])},
}


@pytest.mark.parametrize("groups", GATHERED)
def test_gathering(groups: str) -> None:
    found = columns(TABLE, *(tuple(group.split("=")) for group in groups.split()))  # type: ignore[arg-type]
    assert {n: (array.dtype.str.lstrip("<"), array.tolist()) for n, array in found.items()} == GATHERED[groups]


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        ([("x", "q")], "has no column 'q', which group 'x' names; its columns: 'kind', 'a', 'b', 'c'"),
        ([("x", "a,c")], "has text in column 'c', which group 'x' names; several columns can be gathered only if"),
        ([("x", "kind,a,b"), ("y", "*")], "has no numeric column left for group 'y'"),
        ([("c", "a")], "has two columns 'c'; give each a name of its own"),
    ],
)
def test_what_cannot_be_gathered(groups: list[tuple[str, str]], told: str) -> None:
    assert refusal(TABLE, *groups).startswith(told)


HOSTILE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "is empty; a csv file begins with a row that names its columns"),
    "empty lines": (b"\n\r\n\n", "is empty; a csv file begins with a row"),
    "a header alone": (b"a,b\n", "has a header, but no rows below it"),
    "no header": (b"1,2\n3,4\n", "has numbers in its first row (1, 2), which must name the columns: add a header"),
    "a column without a name": (b",a\n0,1\n", "has no name for column 1 in its header; give it one, or leave"),
    "two columns of a name": (b"a,b, a\n1,2,3\n", "has two columns 'a' in its header"),
    "a name with a line break": (b'"a\nb",c\n1,2\n', "has a column 'a\\nb'; a column's name has 1 to 100 printable"),
    "a long name": (b"a" * 101 + b"\n1\n", "a column's name has 1 to 100 printable characters"),
    "a row too short": (b"a,b\n1,2\n3\n", "has 1 cells in the row at line 3, but its header names 2"),
    "a row too long": (b"a,b\n\n1,2\n3,4,5\n", "has 3 cells in the row at line 4, but its header names 2"),
    "a short row after a long cell": (b'a,b\n"x\ny\nz",2\n3\n', "has 1 cells in the row at line 5"),
    "other bytes": (b"a,b\n1,2\n3,\xff\n", "is not text in UTF-8 at line 3, byte 3 of the line"),
    "UTF-16": ("a,b\n1,2\n".encode("utf-16"), "has a zero byte at line 1; a csv file must be text"),
    "UTF-16 without a mark": ("a,b\n1,2\n".encode("utf-16-le"), "has a zero byte at line 1"),
    "a zero byte": (b"a,b\n1,2\n3,\0\n", "has a zero byte at line 3; a csv file must be text in UTF-8"),
    "an open quote": (b'a,b\n1,"2\n3,4\n', "can't be read as csv at line 3: a quote isn't closed"),
    "something after a quote": (b'a,b\n1,"2"3\n', "can't be read as csv at line 2: a quote isn't closed, or something"),
    "old line ends": (b"a,b\r1,2\r", "can't be read as csv at line 1"),
    "a cell of 20,000 characters": (b"a\n1\n" + b"x" * 20_000 + b"\n", "has a cell of 20,000 characters at line 3"),
    "a cell of 200,000 characters": (b"a\n1\n" + b"x" * 200_000, "can't be read as csv at line 3"),
    "a cell of 10 MB": (b"a\n1\n" + b"1" * 10_000_000, "has a row of more than 4,194,304 bytes at line 3"),
    "a row of 5 MB": (b"a\n" + b'"1\n",' * 1_000_000, "has a row of more than 4,194,304 bytes at line"),
    "millions of columns": (b",".join([b"a"] * 2_000_000), "has 2,000,000 columns; must have at most 50,000"),
    "more columns than a dataset has": (
        b",".join(b"a%d" % n for n in range(1001)) + b"\n" + b",".join([b"1"] * 1001) + b"\n",
        "has 1,001 columns; must have 1 to 1,000. A group gathers many of them into one",
    ),
    "numbers that grow": (
        b"a\n" + b"1\n" * 3_000,
        f"unpacks to 24,000 bytes; must be at most {LIMIT:,}. The",
    ),
    "one long text": (b"a,b\n" + b"x,1\n" * 50 + b"y" * 5_000 + b",1\n", f"bytes; must be at most {LIMIT:,}"),
    "a bomb": (gzip.compress(b"a\n" + b"\n" * 10**7), f"unpacks to more than {LIMIT:,} bytes, which is the most"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_refused(name: str) -> None:
    data, told = HOSTILE[name]
    assert told in refusal(data)


def test_more_columns_than_a_dataset_has_may_be_gathered() -> None:
    names, row = ",".join(f"p{n}" for n in range(1500)), ",".join(map(str, range(1500)))
    (found,) = columns(f"{names}\n{row}\n".encode(), ("x", "*")).values()
    np.testing.assert_array_equal(found, [range(1500)])


CELL = st.text('a1.,"\n \N{SNOWMAN}', max_size=5)


@settings(max_examples=30)
@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=6), st.sampled_from(["\n", "\r\n"]))
def test_text_comes_as_it_was(rows: list[tuple[str, str]], end: str) -> None:
    """What Python's writer writes; a first row of words makes every column text."""
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator=end).writerows([("left", "right"), ("word", "word"), *rows])
    found = columns(file.getvalue().encode())
    # A blank at a cell's beginning is between cells, unless it is in quotes.
    expected = [[row[n] if any(c in row[n] for c in ',"\n') else row[n].lstrip(" ") for row in rows] for n in (0, 1)]
    assert [array.tolist()[1:] for array in found.values()] == expected


@settings(max_examples=30)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1), st.floats(allow_nan=False))
def test_numbers_come_as_they_were(integers: list[int], number: float) -> None:
    assert one(*map(str, integers)).tolist() == integers
    assert one(repr(number), "0.5").tolist() == [number, 0.5]


@settings(max_examples=50)
@given(st.sampled_from([TABLE, b'a,b\r\n"x, y",1\r\n,2.5\r\n', gzip.compress(TABLE)]).flatmap(broken), st.booleans())
def test_a_broken_file_is_read_or_refused(data: bytes, gathered: bool) -> None:
    read_or_refuse(data, *([("x", "*")] if gathered else []), known=Format.CSV)


@settings(max_examples=30)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    read_or_refuse(data)
