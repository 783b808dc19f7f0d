"""Sample datasets, and the dataset of a job being brought to the server."""

import io
from pathlib import Path

import numpy as np
import pytest

from chainrule import Client, SampleError, TransferError
from chainrule.jobdata import dataset_id, provide_dataset
from chainrule.jobfile import JobFile, read_job_file
from chainrule.samples import SAMPLES, make_sample
from tests.unit.client.fakes import FakeService

SHAPES = {
    "digits": ((1797, 64), (1797,), "int64"),
    "breast-cancer": ((569, 30), (569,), "int64"),
    "wine": ((178, 13), (178,), "int64"),
    "diabetes": ((442, 10), (442, 1), "float32"),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_has_its_columns(name: str) -> None:
    data = make_sample(name)
    with np.load(io.BytesIO(data), allow_pickle=False) as columns:
        x, y = columns["x"], columns["y"]
    assert (x.shape, y.shape, y.dtype.name) == SHAPES[name]
    assert x.dtype == np.float32
    assert np.isfinite(x).all()
    if name == "digits":
        assert (x.min(), x.max()) == (0, 1)
    else:
        np.testing.assert_allclose(x.std(axis=0), 1, rtol=1e-4)
    assert make_sample(name) == data


def test_there_is_no_such_sample() -> None:
    with pytest.raises(SampleError, match='no sample dataset "cats"; there are breast-cancer, diabetes, digits, wine'):
        make_sample("cats")


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("cars.npz", "cars-12345678"),
        ("My Cars (2).npz", "my-cars-2-12345678"),
        ("2024.npz", "data-2024-12345678"),
        ("-.npz", "data-12345678"),
        ("a" * 80 + ".npz", "a" * 54 + "-12345678"),
    ],
)
def test_a_file_becomes_an_id(file: str, expected: str) -> None:
    assert dataset_id(Path(file), "123456789") == expected
    assert len(expected) <= 63


def job_of(folder: Path, dataset: str) -> JobFile:
    path = folder / "job.yaml"
    path.write_text(f"data: {{dataset: {dataset}}}")
    return read_job_file(path)


def test_a_file_is_uploaded_once(client: Client, service: FakeService, tmp_path: Path) -> None:
    (tmp_path / "cars.npz").write_bytes(b"one")
    said: list[str] = []
    first = provide_dataset(client, job_of(tmp_path, "cars.npz"), said.append)
    again = provide_dataset(client, job_of(tmp_path, "cars.npz"), said.append)
    assert first == again
    assert first.spec.data.dataset == "datasets/cars-7692c3ad"
    assert said == [f"uploading {tmp_path / 'cars.npz'} as datasets/cars-7692c3ad"]
    (tmp_path / "cars.npz").write_bytes(b"two")
    provide_dataset(client, job_of(tmp_path, "cars.npz"), said.append)
    assert sorted(service.datasets.files.values()) == [b"one", b"two"]


def test_another_file_of_the_same_id_is_not_used(client: Client, service: FakeService, tmp_path: Path) -> None:
    (tmp_path / "cars.npz").write_bytes(b"one")
    service.datasets.files["datasets/cars-7692c3ad"] = b"other"
    with pytest.raises(TransferError, match="exists with other content"):
        provide_dataset(client, job_of(tmp_path, "cars.npz"), print)


def test_a_sample_is_made_if_the_server_has_none(client: Client, service: FakeService, tmp_path: Path) -> None:
    said: list[str] = []
    provide_dataset(client, job_of(tmp_path, "wine"), said.append)
    provide_dataset(client, job_of(tmp_path, "wine"), said.append)
    assert service.datasets.files == {"datasets/wine": make_sample("wine")}
    assert len(said) == 1


def test_other_datasets_are_the_servers_business(client: Client, service: FakeService, tmp_path: Path) -> None:
    job = provide_dataset(client, job_of(tmp_path, "cats"), print)
    assert job.spec.data.dataset == "datasets/cats"
    assert service.datasets.files == {}
