"""Datasets: there at once, whole, and never changed."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.data.columns import ROWS_AT_ONCE, Column, describe
from service.data.datasets import Dataset, Datasets
from service.errors import AlreadyExists, InvalidArgument, NotFound
from tests.unit.service.hostile import GOOD, HOSTILE, LIMIT, npz
from worker.arrays import Array

SUM = hashlib.sha256(GOOD).hexdigest()


@pytest.fixture
def datasets(tmp_path: Path) -> Iterator[Datasets]:
    """None are there at first, and what a test left is sound."""
    opened = Datasets(tmp_path / "datasets", LIMIT)
    yield opened
    assert {path.name for path in (tmp_path / "datasets").iterdir()} == {dataset.id for dataset in opened.all()}


def upload(datasets: Datasets, dataset_id: str, data: bytes = GOOD, sha256: str | None = None) -> Dataset:
    with datasets.receive(len(data)) as part:
        for offset in range(0, len(data), 1000):
            part.write(offset, data[offset : offset + 1000])
        return datasets.add(dataset_id, part, sha256 or hashlib.sha256(data).hexdigest())


def test_what_is_known_of_one(datasets: Datasets, tmp_path: Path) -> None:
    made = upload(datasets, "flowers")
    x = Column("x", "float32", (2,), 0.0, 11.0, 0)
    y = Column("y", "int64", (), 0.0, 5.0, 0)
    assert made == Dataset("flowers", 6, (x, y), len(GOOD), SUM, made.created)
    assert (made.name, made.column("y"), made.column("z")) == ("datasets/flowers", 1, None)
    assert datasets.get("flowers") == made
    assert Datasets(tmp_path / "datasets", LIMIT).all() == [made]


def test_its_columns_cannot_be_written(datasets: Datasets) -> None:
    upload(datasets, "flowers")
    x, y = datasets.array("flowers", 0), datasets.array("flowers", 1)
    np.testing.assert_array_equal(x, np.arange(12, dtype=np.float32).reshape(6, 2))
    np.testing.assert_array_equal(y, range(6))
    with pytest.raises(ValueError, match="read-only"):
        x[0] = 1


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_refused_leaves_nothing(name: str, datasets: Datasets) -> None:
    data, _ = HOSTILE[name]
    with pytest.raises(InvalidArgument):
        upload(datasets, "flowers", data())
    assert datasets.all() == []
    datasets.check_free("flowers")


@pytest.mark.parametrize(
    ("size", "parts", "field", "told"),
    [
        (10, [(1, b"a")], "chunk.offset", "is 1; the next byte wanted is 0"),
        (10, [(0, b"abc"), (0, b"abc")], "chunk.offset", "is 0; the next byte wanted is 3"),
        (10, [(0, b"abc"), (2, b"abc")], "chunk.offset", "is 2; the next byte wanted is 3"),
        (10, [(-1, b"abc")], "chunk.offset", "is -1; the next byte wanted is 0"),
        (4, [(0, b"abc"), (3, b"de")], "chunk.data", "goes to byte 5; the header announced 4"),
    ],
)
def test_parts_come_in_order(
    size: int, parts: list[tuple[int, bytes]], field: str, told: str, datasets: Datasets
) -> None:
    with datasets.receive(size) as part:
        for offset, data in parts[:-1]:
            part.write(offset, data)
        with pytest.raises(InvalidArgument) as refused:
            part.write(*parts[-1])
    assert [(v.field, v.description) for v in refused.value.violations] == [(field, told)]


def test_an_upload_must_be_what_was_announced(datasets: Datasets) -> None:
    with datasets.receive(9) as part:
        part.write(0, b"abc")
        with pytest.raises(InvalidArgument, match=r"header.size_bytes: is 9, but the upload ended after 3 bytes"):
            datasets.add("flowers", part, SUM)
    wrong = "0" * 64
    with pytest.raises(InvalidArgument, match=f"header.sha256: is {wrong}, but the bytes received have {SUM}"):
        upload(datasets, "flowers", GOOD, wrong)
    assert datasets.all() == []


def test_a_sum_may_be_in_capitals(datasets: Datasets) -> None:
    assert upload(datasets, "flowers", GOOD, SUM.upper()).sha256 == SUM


def test_a_name_is_given_once(datasets: Datasets) -> None:
    made = upload(datasets, "flowers")
    with pytest.raises(AlreadyExists, match="there is a dataset datasets/flowers already"):
        upload(datasets, "flowers", npz(z=np.ones(3)))
    assert datasets.all() == [made]


def test_of_two_at_once_the_first_wins(datasets: Datasets) -> None:
    with datasets.receive(len(GOOD)) as one, datasets.receive(len(GOOD)) as other:
        for part in (one, other):
            part.write(0, GOOD)
        made = datasets.add("flowers", one, SUM)
        with pytest.raises(AlreadyExists):
            datasets.add("flowers", other, SUM)
    assert datasets.all() == [made]


def test_the_list_is_by_name(datasets: Datasets) -> None:
    for name in ("b", "a-2", "c", "a"):
        upload(datasets, name)
    assert [dataset.id for dataset in datasets.all()] == ["a", "a-2", "b", "c"]


def test_deleting(datasets: Datasets) -> None:
    for name in ("flowers", "trees"):
        upload(datasets, name)
    kept = datasets.array("flowers", 0)
    datasets.delete("flowers")
    assert [dataset.id for dataset in datasets.all()] == ["trees"]
    for call in (datasets.get, datasets.delete):
        with pytest.raises(NotFound, match="there is no dataset datasets/flowers"):
            call("flowers")
    assert kept[5, 1] == 11  # whoever has it open can go on
    upload(datasets, "flowers", npz(z=np.ones(3)))


def test_what_a_crash_left_is_swept(datasets: Datasets, tmp_path: Path) -> None:
    made = upload(datasets, "flowers")
    root = tmp_path / "datasets"
    (root / ".upload-abc").write_bytes(GOOD)
    (root / ".trees.abc").mkdir()
    (root / ".trees.abc" / "0.npy").touch()
    assert datasets.all() == [made]
    assert Datasets(root, LIMIT).all() == [made]
    assert [path.name for path in root.iterdir()] == ["flowers"]


NUMBERS = st.sampled_from(["f2", "f4", "f8", "i1", "u1", "i8", "u8", "?"]).map(np.dtype)


@given(arrays.arrays(NUMBERS, arrays.array_shapes(max_dims=3, max_side=5)))
def test_statistics(array: Array) -> None:
    column = describe("x", array)
    finite = array[np.isfinite(array)]
    assert (column.dtype, column.row_shape) == (array.dtype.name, array.shape[1:])
    assert column.nonfinite_count == array.size - finite.size
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    assert (column.min, column.max) == (low, high)
    assert column.integral == (array.dtype.kind in "iu")


def test_statistics_over_many_rows() -> None:
    array = np.zeros(2 * ROWS_AT_ONCE + 5)
    array[[0, ROWS_AT_ONCE, -1, -2]] = np.nan, -2, 7, np.inf
    assert describe("x", array) == Column("x", "float64", (), -2.0, 7.0, 2)


def test_what_is_not_a_number_is_counted(datasets: Datasets) -> None:
    made = upload(datasets, "flowers", npz(x=np.array([[1, np.nan], [np.inf, -np.inf]])))
    assert made.columns == (Column("x", "float64", (2,), 1.0, 1.0, 3),)
    assert datasets.get("flowers") == made
