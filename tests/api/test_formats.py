"""Tables, images and imports, as a client brings them; and what can't be learnt from."""

import gzip
import io
import os
import struct
import threading
from pathlib import Path

import fsspec
import grpc
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.spec import AbstractFileSystem

from chainrule import Client, InvalidRequest
from chainrule.packing import Columns
from chainrule.v1 import dataset_service_pb2 as pb
from tests.api.running import FLOWERS, SECONDS, Service, refusal, serving

IMAGES = np.arange(48, dtype=np.uint8).reshape(6, 2, 4)
LABELS = np.array([0, 1, 2, 0, 1, 2], np.uint8)
TABLE = b"kind,a,b,note\n1,0.5,2,red\n0,1.5,,blue\n"


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def test_a_table(shared: Service) -> None:
    with Client(shared.addresses["grpc"]) as client:
        made = client.upload_dataset(TABLE, "wine", groups={"y": ["kind"], "x": ["*"]})
        try:
            assert (made.rows, made.format) == (2, pb.Dataset.CSV)
            assert [(group.name, list(group.columns)) for group in made.groups] == [("y", ["kind"]), ("x", ["*"])]
            y, x, note = made.columns
            assert (y.name, y.dtype, list(y.row_shape), y.distinct_count) == ("y", "int64", [], 2)
            assert (x.name, x.dtype, list(x.row_shape), x.nonfinite_count) == ("x", "float64", [2], 1)
            assert (x.min, x.max) == (0.5, 2.0)
            assert x.mean == pytest.approx(4 / 3)
            assert (note.name, note.dtype, note.longest_text, note.distinct_count) == ("note", "<U4", 4, 2)
            found = refusal(
                lambda: shared.create(data__dataset=made.name, data__input_column="note", data__target_column="y")
            )
            assert found.fields["training_job.spec.data.input_column"].startswith("'note' holds text; must hold")
        finally:
            client.delete_dataset("wine")


def test_images_and_labels_in_files_of_their_own(shared: Service, tmp_path: Path) -> None:
    (tmp_path / "images.gz").write_bytes(gzip.compress(idx(IMAGES)))
    (tmp_path / "labels").write_bytes(idx(LABELS))
    columns: Columns = {"x": tmp_path / "images.gz", "y": tmp_path / "labels", "z": np.arange(6.0)}
    with Client(shared.addresses["grpc"]) as client:
        made = client.upload_dataset(columns, "images")
        assert client.upload_dataset(columns, "images") == made
        client.delete_dataset("images")
    assert made.stored_bytes == 48 + 6 + 48
    assert [(c.name, c.dtype, list(c.row_shape)) for c in made.columns] == [
        ("x", "uint8", [2, 4]),
        ("y", "uint8", []),
        ("z", "float64", []),
    ]


def test_a_parquet_file(shared: Service) -> None:
    file = io.BytesIO()
    pq.write_table(pa.table({"a": [1, 2, 3], "b": [0.5, None, 1.5]}), file)
    with Client(shared.addresses["grpc"]) as client:
        made = client.upload_dataset(file.getvalue(), "parquet")
        client.delete_dataset("parquet")
    assert made.format == pb.Dataset.PARQUET
    assert [(c.name, c.dtype, c.nonfinite_count) for c in made.columns] == [("a", "int64", 0), ("b", "float64", 1)]


# Imports


def imported(service: Service, uri: str, dataset_id: str = "wine", **fields: object) -> pb.Dataset:
    asked = pb.ImportDatasetRequest(dataset_id=dataset_id, uri=uri, **fields)  # type: ignore[arg-type]
    return service.datasets.ImportDataset(asked, timeout=SECONDS)


def test_importing(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    path = tmp_path / "in" / "deep" / "the wine.csv"
    path.write_bytes(TABLE)
    uri = path.as_uri()
    fsspec.filesystem("memory").pipe("/bucket/data/wine.csv", TABLE)
    with serving(tmp_path / "data", import_root=[str(tmp_path / "in"), "memory://bucket/data"]) as service:
        made = imported(service, uri)
        assert (made.rows, made.format, made.size_bytes) == (2, pb.Dataset.CSV, len(TABLE))
        assert imported(service, uri) == made
        group = pb.ColumnGroup(name="x", columns=["a", "b"])
        other = imported(service, "memory://bucket/data/wine.csv", "other", groups=[group])
        assert other.sha256 == made.sha256
        path.write_bytes(TABLE + b"0,1,1,white\n")
        assert refusal(lambda: imported(service, uri)).code == grpc.StatusCode.ALREADY_EXISTS
        path.write_bytes(b"a\n1,2\n")
        found = refusal(lambda: imported(service, uri, "broken"))
        assert (found.reason, list(found.fields)) == ("BAD_DATASET", ["uri"])
        assert found.fields["uri"] == "has 2 cells in the row at line 2, but its header names 1"
        found = refusal(lambda: imported(service, "file:///etc/passwd", "../x"))
        assert list(found.fields) == ["dataset_id"]
        found = refusal(lambda: imported(service, "file:///etc/passwd", "x"))
        assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_URI")
        data = Path(service.addresses["data_dir"], "datasets")
        assert sorted(path.name for path in data.iterdir()) == ["other", "wine"]


class Stuck(AbstractFileSystem):  # type: ignore[misc]
    """A store that says nothing until it is let go."""

    go = threading.Event()

    def _open(self, *_: object, **__: object) -> io.BytesIO:
        assert self.go.wait(SECONDS)
        return io.BytesIO(TABLE)


def test_a_store_that_says_nothing_keeps_nobody_else_waiting(tmp_path: Path) -> None:
    """There are more imports than the event loop has threads."""
    fsspec.register_implementation("oci", Stuck, clobber=True)
    many = (os.cpu_count() or 1) + 5
    with serving(tmp_path, import_root=["oci://bucket"]) as service:
        asked = [pb.ImportDatasetRequest(dataset_id=f"wine-{n}", uri="oci://bucket/wine.csv") for n in range(many)]
        try:
            calls = [service.datasets.ImportDataset.future(each, timeout=SECONDS) for each in asked]
            gone = service.datasets.ImportDataset.future(asked[0], timeout=SECONDS)
            service.upload("flowers", FLOWERS)
            assert service.create(epochs=1).name
            gone.cancel()
            assert not any(call.done() for call in calls)
        finally:
            Stuck.go.set()
        assert sorted(call.result().name for call in calls) == sorted(f"datasets/wine-{n}" for n in range(many))


def test_importing_from_nowhere(shared: Service) -> None:
    found = refusal(lambda: imported(shared, "file:///etc/passwd"))
    assert (found.code, found.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "IMPORT_NOT_CONFIGURED")
    assert "start it with --import-root" in found.message


def test_a_client_is_told_what_is_wrong(shared: Service) -> None:
    with Client(shared.addresses["grpc"]) as client, pytest.raises(InvalidRequest, match="at line 3") as refused:
        client.upload_dataset(b"a,b\n1,2\n1\n", "wine")
    assert refused.value.violations[0].description == "has 1 cells in the row at line 3, but its header names 2"
