"""The examples' data: what is made of the files they come in, and that a file is only read if it is the right one."""

import gzip
import io
import tarfile
import zipfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from examples.data import SOURCES, every
from examples.data.archives import MOST_BYTES, Archive, Missing, from_tar, from_zip
from examples.data.columns import one_hot, standardised
from examples.data.images import fashion_mnist
from examples.data.series import DAY, LAST_WEEKS, PAST, WEEK, windows
from examples.data.text import numbered, words


def test_half_hours_a_day_apart_are_held_against_each_other() -> None:
    series = np.random.default_rng(1).standard_normal(LAST_WEEKS + 2 * WEEK)
    known = series[:-LAST_WEEKS]
    made = windows(series, PAST, PAST + WEEK)
    assert made["x"].shape == (WEEK + 1, PAST, 3)
    for t in (PAST, PAST + 70, PAST + WEEK):
        x, y = made["x"][t - PAST], made["y"][t - PAST]
        np.testing.assert_allclose(x[:, 0] * known.std() + known.mean(), series[t - PAST : t], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(y * known.std(), series[t : t + DAY] - series[t - DAY : t], rtol=1e-4, atol=1e-5)
        # A day after the last half-hour that is seen: 0 is Monday.
        weekday = (t - 1 + DAY) // DAY % 7
        assert x[-1, 1:].tolist() == [weekday == 5, weekday == 6]


def test_words_are_numbered_by_how_frequent_they_are() -> None:
    texts = [words("It's good, GOOD!"), words("good 2 see"), words("")]
    assert texts[0] == ["it's", "good", ",", "good", "!"]
    table = numbered(texts, longest=4, vocabulary=3)
    assert table.tolist() == [[1, 2, 1, 2], [2, 1, 1, 0], [0, 0, 0, 0]]


def test_columns_are_made_easy_to_learn_from() -> None:
    made = standardised(np.array([[1.0, 10.0], [3.0, 30.0]]))
    np.testing.assert_allclose(made, [[-1, -1], [1, 1]])
    assert one_hot(["b", "a", "b"]).tolist() == [[0, 1], [1, 0], [0, 1]]


def test_idx_files_become_images(tmp_path: Path) -> None:
    pixels = np.arange(2 * 28 * 28, dtype=np.uint8)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(16) + pixels.tobytes()))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(8) + bytes([3, 9])))
    made = fashion_mnist(tmp_path, tmp_path)
    assert made["x"].shape == (2, 28, 28)
    assert (made["x"].reshape(-1) == pixels).all()
    assert made["y"].tolist() == [3, 9]


def test_where_fashion_mnist_is_missing_it_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="apt-get install dataset-fashion-mnist"):
        fashion_mnist(tmp_path, tmp_path)


def test_rows_are_picked_from_all_over_the_dataset() -> None:
    picked = every({"x": np.arange(100), "y": np.arange(100) * 2}, 4)
    assert picked["x"].tolist() == [0, 25, 50, 75]
    assert picked["y"].tolist() == [0, 50, 100, 150]
    assert every(picked, 10)["x"].tolist() == [0, 25, 50, 75]


@pytest.mark.parametrize("name", [name for name, source in SOURCES.items() if source.columns])
def test_a_stand_in_looks_as_it_says(name: str) -> None:
    made, columns = SOURCES[name].stand_in(5), SOURCES[name].columns
    assert {key: (str(array.dtype), array.shape) for key, array in made.items()} == {
        key: (column.dtype, (5, *column.shape)) for key, column in columns.items()
    }
    assert all(
        0 <= made[key].min() <= made[key].max() < column.below for key, column in columns.items() if column.below
    )


def test_a_file_that_was_fetched_is_not_fetched_again(tmp_path: Path) -> None:
    archive = Archive("some", "1.0", sha256(b"content").hexdigest())
    (tmp_path / "some-1.0.whl").write_bytes(b"content")
    assert archive.fetched(tmp_path) == b"content"


def test_members_are_read_up_to_a_limit() -> None:
    packed, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("small", "a")
        file.writestr("large", bytes(MOST_BYTES + 1))
    with tarfile.open(fileobj=tarred, mode="w:gz") as tar:
        for name, size in (("small", 1), ("large", MOST_BYTES + 1)):
            member = tarfile.TarInfo(name)
            member.size = size
            tar.addfile(member, io.BytesIO(bytes(size)))
    assert from_zip(packed.getvalue(), "small") == b"a"
    assert from_tar(tarred.getvalue(), "small") == b"\0"
    for read, content in ((from_zip, packed.getvalue()), (from_tar, tarred.getvalue())):
        with pytest.raises(Missing, match="large has more than"):
            read(content, "large")
        with pytest.raises(KeyError):
            read(content, "absent")
