"""The examples' data: what is made of the files they come in, and that a file is only read if it is the right one."""

import csv
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
from examples.data.columns import as_csv, has_text
from examples.data.images import fashion_mnist
from examples.data.series import DAY, LAST_WEEKS, PAST, WEEK, WEEKDAYS, half_hours
from examples.vanishing_gradients import drawn, residual, trained


def test_a_half_hour_knows_which_day_it_is_a_day_later() -> None:
    series = np.random.default_rng(1).standard_normal(12 * WEEK)
    made = half_hours(series, 0, None)
    assert made["demand"].tolist() == series.tolist()
    for t in (0, 47, 48, 5 * DAY, WEEK - 1, WEEK + 70):
        assert made["tomorrow"][t] == WEEKDAYS[(t + DAY) // DAY % 7]  # the first is on a Monday


def test_the_last_weeks_begin_with_what_their_first_forecast_looks_back_on() -> None:
    series = np.arange(12.0 * WEEK)
    known, last = half_hours(series, 0, -LAST_WEEKS), half_hours(series, -LAST_WEEKS - PAST, None)
    assert last["demand"][PAST] == known["demand"][-1] + 1
    assert len(last["demand"]) == PAST + LAST_WEEKS


def test_columns_with_texts_are_sent_as_a_table() -> None:
    columns = {"n": np.array([1.5, -2e-7]), "t": np.array(['He said "no", twice', "tw\no"])}
    assert has_text(columns)
    assert not has_text({"n": columns["n"]})
    header, *rows = csv.reader(io.StringIO(as_csv(columns).decode(), newline=""))
    assert header == ["n", "t"]
    assert [(float(n), t) for n, t in rows] == list(zip(*columns.values(), strict=True))


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


def test_the_figure_of_vanishing_gradients_is_made_of_runs() -> None:
    run = trained("sigmoid with ways around", residual(), epochs=1)
    assert len(run.before) == len(run.after)
    assert min(*run.before, *run.after) > 0
    assert 0 < run.accuracy < 1
    assert "sigmoid with ways around" in drawn([run] * 4)
