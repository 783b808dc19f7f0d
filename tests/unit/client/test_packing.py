"""Columns packed into one file, and uploads that the client goes on with by itself."""

import gzip
import io
import zipfile
from pathlib import Path

import grpc
import numpy as np
import pytest

from chainrule import Client, DatasetFileError, Unavailable
from chainrule.packing import Columns, packed
from chainrule.v1.dataset_service_pb2 import Dataset
from tests.unit.client.fakes import FakeService

IDX = b"\0\0\x08\x01\0\0\0\x02\x05\x06"


def test_a_file_or_its_bytes_are_left_alone(tmp_path: Path) -> None:
    for source in (tmp_path / "a.csv", b"bytes"):
        with packed(source) as file:
            assert file is source


def test_columns_are_packed_as_they_are(tmp_path: Path) -> None:
    array = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "a.npy", array)
    (tmp_path / "b").write_bytes(IDX)
    (tmp_path / "c").write_bytes(gzip.compress(IDX))
    columns: Columns = {"a": tmp_path / "a.npy", "b": tmp_path / "b", "c": tmp_path / "c", "d": array.T}
    files = []
    for _ in range(2):
        with packed(columns) as file:
            assert isinstance(file, Path)
            files.append(file.read_bytes())
        assert not file.exists()
    assert files[0] == files[1]  # so that an upload that broke off is found again
    with zipfile.ZipFile(io.BytesIO(files[0])) as archive:
        assert archive.namelist() == ["a.npy", "b.idx", "c.idx.gz", "d.npy"]
        assert archive.read("b.idx") == IDX
        assert archive.read("c.idx.gz") == (tmp_path / "c").read_bytes()
    only: Columns = {name: column for name, column in columns.items() if name in "ad"}
    with packed(only) as file, np.load(file) as loaded:  # what numpy.savez would have written
        np.testing.assert_array_equal(loaded["a"], array)
        np.testing.assert_array_equal(loaded["d"], array.T)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "a column's own file must be .npy or IDX"),
        (b"a,b\n1,2\n", "a column's own file must be .npy or IDX"),
        (b"PK\x03\x04", "a table or an .npz has all columns in it, and is uploaded alone"),
        (gzip.compress(b"a,b\n", mtime=0), "a column's own file must be .npy or IDX"),
        (gzip.compress(IDX)[:5], "is a gzip file that is cut off or damaged"),
    ],
    ids=["nothing", "a table", "an archive", "a table in gzip", "cut off"],
)
def test_what_can_be_no_column(data: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(DatasetFileError, match="x=") as refused, packed({"x": tmp_path / "file"}):
        pass
    assert told in str(refused.value)
    assert list(Path(tmp_path).iterdir()) == [tmp_path / "file"]


def test_objects_are_no_column() -> None:
    with pytest.raises(DatasetFileError, match="column 'x' holds Python objects"), packed({"x": np.array([{}])}):
        pass


def test_layout_and_groups_are_sent(client: Client, service: FakeService) -> None:
    client.upload_dataset(b"a,b\n1,2\n", "a", layout=Dataset.CSV, groups={"x": ["a", "b"]})
    (header,) = service.datasets.headers
    assert header.format == Dataset.CSV
    assert [(group.name, list(group.columns)) for group in header.groups] == [("x", ["a", "b"])]


@pytest.mark.parametrize("drops", [[0], [1], [2], [0, 1, 0, 1]])
def test_a_broken_upload_goes_on_where_it_was(client: Client, service: FakeService, drops: list[int]) -> None:
    service.datasets.drops = list(drops)
    data = bytes(2_500_000)
    client.upload_dataset(data, "a")
    assert service.datasets.files == {"datasets/a": data}
    assert service.datasets.chunks == [1_048_576, 1_048_576, 402_848]  # none was sent twice
    assert len(service.datasets.headers) == len(drops) + 1


def test_an_upload_that_an_earlier_process_began(client: Client, service: FakeService) -> None:
    service.datasets.drops = [1]
    data = bytes(2_500_000)
    with pytest.raises(Unavailable):
        client.upload_dataset(data, "a", patience=0.0)
    calls: list[tuple[int, int]] = []
    client.upload_dataset(data, "a", lambda *call: calls.append(call))
    assert calls == [(2_097_152, 2_500_000), (2_500_000, 2_500_000)]


def test_patience_ends(client: Client, service: FakeService) -> None:
    service.datasets.drops = [0] * 50
    with pytest.raises(Unavailable) as refused:
        client.upload_dataset(b"npz", "a", patience=0.2)
    assert refused.value.code is grpc.StatusCode.UNAVAILABLE
    assert 1 < len(service.datasets.headers) < 10
