"""Datasets: there at once, whole, and never changed."""

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from service.data.columns import Column
from service.data.datasets import Content, Dataset, Datasets, Quota
from service.data.formats import Format
from service.data.reading import Group
from service.errors import AlreadyExists, InvalidArgument, NotFound, ResourceExhausted
from tests.unit.service.hostile import GOOD, HOSTILE, LIMIT, npz

SUM = hashlib.sha256(GOOD).hexdigest()


@pytest.fixture
def datasets(tmp_path: Path) -> Iterator[Datasets]:
    """None are there at first, and what a test left is sound."""
    opened = Datasets(tmp_path / "datasets", LIMIT)
    yield opened
    assert {path.name for path in (tmp_path / "datasets").iterdir()} == {dataset.id for dataset in opened.all()}


def add(
    datasets: Datasets,
    dataset_id: str,
    data: bytes = GOOD,
    known: Format | None = Format.NPZ,
    groups: tuple[Group, ...] = (),
) -> Dataset:
    with TemporaryDirectory() as directory:
        path = Path(directory, "file")
        path.write_bytes(data)
        return datasets.add(dataset_id, Content.of(path, known, groups), path)


def test_what_is_known_of_one(datasets: Datasets, tmp_path: Path) -> None:
    made = add(datasets, "flowers")
    x = Column("x", "float32", (2,), 0.0, 11.0, 0, 5.5, float(np.arange(12, dtype=np.longdouble).std()), 12)
    y = Column("y", "int64", (), 0.0, 5.0, 0, 2.5, float(np.arange(6, dtype=np.longdouble).std()), 6)
    assert made == Dataset("flowers", 6, (x, y), len(GOOD), SUM, made.created, Format.NPZ)
    assert (made.name, made.column("y"), made.column("z")) == ("datasets/flowers", 1, None)
    assert made.stored_bytes == 12 * 4 + 6 * 8
    assert datasets.get("flowers") == made
    assert Datasets(tmp_path / "datasets", LIMIT).all() == [made]


def test_its_columns_cannot_be_written(datasets: Datasets) -> None:
    add(datasets, "flowers")
    x, y = datasets.array("flowers", 0), datasets.array("flowers", 1)
    np.testing.assert_array_equal(x, np.arange(12, dtype=np.float32).reshape(6, 2))
    np.testing.assert_array_equal(y, range(6))
    with pytest.raises(ValueError, match="read-only"):
        x[0] = 1


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_refused_leaves_nothing(name: str, datasets: Datasets) -> None:
    data, _ = HOSTILE[name]
    with pytest.raises(InvalidArgument):
        add(datasets, "flowers", data())
    assert datasets.all() == []


def test_the_same_file_again_is_the_same_dataset(datasets: Datasets) -> None:
    made = add(datasets, "flowers")
    assert add(datasets, "flowers") == made
    assert add(datasets, "flowers", known=None) == made
    table = b"a,b\n1,2\n"
    grouped = add(datasets, "table", table, None, (Group("x", ("a", "b")),))
    assert (grouped.format, grouped.groups) == (Format.CSV, (Group("x", ("a", "b")),))
    assert add(datasets, "table", table, Format.CSV, grouped.groups) == grouped == datasets.get("table")
    for groups in ((), (Group("x", ("b", "a")),)):
        with pytest.raises(AlreadyExists, match="datasets/table already, with other groups or another format"):
            add(datasets, "table", table, None, groups)
    with pytest.raises(AlreadyExists, match="with other groups or another format"):
        add(datasets, "flowers", known=Format.CSV)


def test_a_name_is_given_once(datasets: Datasets) -> None:
    made = add(datasets, "flowers")
    with pytest.raises(AlreadyExists, match="there is a dataset datasets/flowers already, with other content"):
        add(datasets, "flowers", npz(z=np.ones(3)))
    assert datasets.all() == [made]


def test_of_several_at_once_one_wins(datasets: Datasets) -> None:
    made: list[Dataset] = []
    refused: list[AlreadyExists] = []

    def bring(rows: int) -> None:
        try:
            made.append(add(datasets, "flowers", npz(z=np.ones(rows))))
        except AlreadyExists as error:
            refused.append(error)

    threads = [threading.Thread(target=bring, args=(rows,)) for rows in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (datasets.all(), len(refused)) == (made, 5)


def test_all_together_have_a_limit(tmp_path: Path) -> None:
    datasets = Datasets(tmp_path, LIMIT, Quota(most_bytes=200, most_datasets=3))
    add(datasets, "a")  # 96 bytes each
    add(datasets, "b")
    with pytest.raises(ResourceExhausted) as refused:
        add(datasets, "c")
    assert refused.value.message.startswith("the dataset has 96 bytes; 192 of the 200 that all datasets together may")
    assert "--total-dataset-bytes" in refused.value.message
    datasets.check_size(8)
    with pytest.raises(ResourceExhausted, match="the dataset has 9 bytes; 192 of the 200"):
        datasets.check_size(9)
    with pytest.raises(ResourceExhausted, match=f"the file has {LIMIT + 1:,} bytes; a dataset may have {LIMIT:,}"):
        datasets.check_size(LIMIT + 1)
    assert add(datasets, "a").id == "a"  # it is there, and needs no room
    datasets.delete("b")
    add(datasets, "c", npz(z=np.ones(1)))
    add(datasets, "d", npz(z=np.ones(1)))
    with pytest.raises(ResourceExhausted, match="there are 3 datasets, of the 3 that there may be"):
        add(datasets, "e", npz(z=np.ones(1)))
    assert {path.name for path in tmp_path.iterdir()} == {"a", "c", "d"}


def test_text_is_kept(datasets: Datasets) -> None:
    made = add(datasets, "words", "word,n\nhello,1\nd\u00e4,2\nhello,3\n".encode(), None)
    assert made.columns[0] == Column("word", "<U5", (), 0.0, 0.0, 0, distinct_count=2, longest_text=5)
    assert made.columns[0].is_text
    assert not made.columns[1].is_text
    assert datasets.array("words", 0).tolist() == ["hello", "d\u00e4", "hello"]


def test_pixels_stay_small(datasets: Datasets) -> None:
    made = add(datasets, "images", npz(x=np.arange(12, dtype=np.uint8).reshape(3, 2, 2)))
    assert (made.columns[0].dtype, made.stored_bytes) == ("uint8", 12)
    assert datasets.array("images", 0).dtype == np.uint8


def test_the_list_is_by_name(datasets: Datasets) -> None:
    for name in ("b", "a-2", "c", "a"):
        add(datasets, name)
    assert [dataset.id for dataset in datasets.all()] == ["a", "a-2", "b", "c"]


def test_deleting(datasets: Datasets) -> None:
    for name in ("flowers", "trees"):
        add(datasets, name)
    kept = datasets.array("flowers", 0)
    datasets.delete("flowers")
    assert [dataset.id for dataset in datasets.all()] == ["trees"]
    for call in (datasets.get, datasets.delete):
        with pytest.raises(NotFound, match="there is no dataset datasets/flowers"):
            call("flowers")
    assert kept[5, 1] == 11  # whoever has it open can go on
    add(datasets, "flowers", npz(z=np.ones(3)))


def test_what_a_crash_left_is_swept(datasets: Datasets, tmp_path: Path) -> None:
    made = add(datasets, "flowers")
    root = tmp_path / "datasets"
    (root / ".upload-abc").write_bytes(GOOD)
    (root / ".trees.abc").mkdir()
    (root / ".trees.abc" / "0.npy").touch()
    assert datasets.all() == [made]
    assert Datasets(root, LIMIT).all() == [made]
    assert [path.name for path in root.iterdir()] == ["flowers"]


def test_what_is_not_a_number_is_counted(datasets: Datasets) -> None:
    made = add(datasets, "flowers", npz(x=np.array([[1, np.nan], [np.inf, -np.inf]])))
    assert made.columns == (Column("x", "float64", (2,), 1.0, 1.0, 3, 1.0, 0.0, 1),)
    assert datasets.get("flowers") == made
