"""A backup of a coordinator at work: what it had acknowledged is there, and jobs go on from it to the same bits."""

import threading
from pathlib import Path

import pytest

from chainrule.v1 import dataset_service_pb2 as datasets_pb
from chainrule.v1 import model_service_pb2 as models_pb
from chainrule.v1 import training_job_pb2 as job_pb
from service.backup.making import back_up
from service.backup.manifest import BackupError
from service.backup.restoring import restore
from service.backup.verifying import verify
from tests.api.running import FLOWERS, SECONDS, request, serving


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def without_progress(job: job_pb.TrainingJob) -> job_pb.TrainingJob:
    """What is durable of a job."""
    job.ClearField("progress")
    return job


def test_a_job_goes_on_from_backups_made_while_it_ran(data: Path, tmp_path: Path) -> None:
    places = [tmp_path / f"backup-{number}" for number in range(2)]
    with serving(data, checkpoint_seconds=0.05) as service:
        service.upload("flowers", FLOWERS)
        first = service.end(service.create(epochs=2).name)
        service.models.SetModelAlias(
            models_pb.SetModelAliasRequest(alias="production", name=f"models/{first.name[5:]}"), timeout=SECONDS
        )
        job = service.create(epochs=40, early_stopping__patience=200, data__validation_fraction=0.25)
        for place in places:
            back_up(data, place)
        undisturbed = service.end(job.name)
    assert undisturbed.state == job_pb.TrainingJob.SUCCEEDED
    for place in places:
        findings = verify(place)
        assert not findings.problems
        assert findings.counted["jobs"] == 2
        restore(place, tmp_path / place.name.replace("backup", "again"))
        with serving(tmp_path / place.name.replace("backup", "again"), checkpoint_seconds=0.05) as service:
            ended = service.end(job.name)
            numbers = [event.number for event in service.events(job.name)]
            assert without_progress(service.get(first.name)) == without_progress(first)
            found = service.models.GetModel(models_pb.GetModelRequest(name=f"models/{first.name[5:]}"), timeout=SECONDS)
        assert ended.result.parameters_sha256 == undisturbed.result.parameters_sha256
        assert numbers == list(range(1, ended.last_event + 1))
        assert list(found.aliases) == ["production"]
        assert not verify(tmp_path / place.name.replace("backup", "again")).problems


def test_backups_while_everything_is_made_and_deleted(data: Path, tmp_path: Path) -> None:
    done = threading.Event()
    with serving(data, checkpoint_seconds=0.05) as service:

        def come_and_go() -> None:
            while not done.is_set():
                service.upload("flowers", FLOWERS)
                job = service.end(service.create(epochs=1).name)
                service.delete(job.name)
                model = models_pb.DeleteModelRequest(name=f"models/{job.name[5:]}")
                service.models.DeleteModel(model, timeout=SECONDS)
                dataset = datasets_pb.DeleteDatasetRequest(name="datasets/flowers")
                service.datasets.DeleteDataset(dataset, timeout=SECONDS)

        thread = threading.Thread(target=come_and_go)
        thread.start()
        try:
            for number in range(10):
                back_up(data, tmp_path / f"backup-{number}")
        finally:
            done.set()
            thread.join(SECONDS)
    assert not thread.is_alive()
    for number in range(10):
        assert not verify(tmp_path / f"backup-{number}").problems


def test_nothing_is_restored_where_a_coordinator_is(data: Path, tmp_path: Path) -> None:
    with serving(data) as service:
        service.upload("flowers", FLOWERS)
        service.training.CreateTrainingJob(request(), timeout=SECONDS)
        back_up(data, tmp_path / "backup")
        with pytest.raises(BackupError, match="isn't empty: it has "):
            restore(tmp_path / "backup", data)
        with pytest.raises(BackupError, match="in the data directory itself"):
            back_up(data, data / "backup")
