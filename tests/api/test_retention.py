"""Jobs that ended long ago, where whoever runs the service doesn't keep them."""

import time
from pathlib import Path

import grpc
import pytest

from chainrule.v1 import model_service_pb2 as models_pb
from chainrule.v1 import training_service_pb2 as pb
from tests.api.running import FLOWERS, SECONDS, Service, refusal, serving


def model_exists(service: Service, job: str) -> bool:
    try:
        service.models.GetModel(models_pb.GetModelRequest(name=f"models/{job[5:]}"), timeout=SECONDS)
    except grpc.RpcError:
        return False
    return True


def names(service: Service) -> set[str]:
    answer = service.training.ListTrainingJobs(pb.ListTrainingJobsRequest(), timeout=SECONDS)
    return {job.name for job in answer.training_jobs}


def checkpoints(directory: Path) -> set[str]:
    """The jobs that have some."""
    return {f"jobs/{path.name}" for path in (directory / "checkpoints").iterdir()}


@pytest.mark.parametrize("with_models", [False, True])
def test_they_go_with_their_checkpoints_and_models_stay_unless_asked(with_models: bool, tmp_path: Path) -> None:
    with serving(tmp_path, checkpoint_seconds=0.0) as service:
        service.upload("flowers", FLOWERS)
        made = [service.end(service.create(epochs=1).name).name for _ in range(4)]
        alias = models_pb.SetModelAliasRequest(alias="production", name=f"models/{made[0][5:]}")
        service.models.SetModelAlias(alias, timeout=SECONDS)
    with serving(tmp_path, keep_ended_jobs=1, delete_models_too=with_models) as service:
        deadline = time.monotonic() + SECONDS
        while names(service) != {made[3]} or checkpoints(tmp_path) != {made[3]}:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert refusal(lambda: service.get(made[1])).reason == "JOB_NOT_FOUND"
        # What an alias stands for is in use.
        assert [model_exists(service, job) for job in made] == [True, not with_models, not with_models, True]
    with serving(tmp_path) as service:
        assert names(service) == {made[3]}


def test_what_a_crash_left_of_a_deleted_job_is_removed(tmp_path: Path) -> None:
    with serving(tmp_path, checkpoint_seconds=0.0) as service:
        service.upload("flowers", FLOWERS)
        made = service.end(service.create(epochs=1).name).name
    left = tmp_path / "checkpoints" / "deletedjob"
    left.mkdir()
    (left / "step-000000000001-00000000.safetensors").write_bytes(b"")
    with serving(tmp_path):
        assert checkpoints(tmp_path) == {made}
