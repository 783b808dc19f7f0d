"""A job's checkpoints: listed, and made models of, whatever became of the job."""

from functools import partial
from pathlib import Path

import grpc

from chainrule.v1 import model_service_pb2 as models_pb
from chainrule.v1 import training_service_pb2 as pb
from chainrule.v1.dataset_service_pb2 import DeleteDatasetRequest
from tests.api.predicting import infer, infer_request, outputs
from tests.api.running import FLOWERS, SECONDS, Service, X, refusal, serving
from tests.unit.service.unreliable import GatedCluster
from tests.unit.service.waiting import eventually


def checkpoints(service: Service, name: str, size: int = 0, token: str = "") -> pb.ListCheckpointsResponse:
    asked = pb.ListCheckpointsRequest(parent=name, page_size=size, page_token=token)
    return service.training.ListCheckpoints(asked, timeout=SECONDS)


def create(service: Service, checkpoint: str, model_id: str = "") -> models_pb.Model:
    asked = models_pb.CreateModelRequest(checkpoint=checkpoint, model_id=model_id)
    return service.models.CreateModel(asked, timeout=SECONDS)


def test_a_job_s_checkpoints_newest_first(service: Service) -> None:
    asked = service.create(checkpoints__keep_last=3, checkpoints__keep_best=True)
    name = asked.name
    service.end(name)
    found = checkpoints(service, name).checkpoints
    steps = [each.step for each in found]
    assert steps == sorted(steps, reverse=True)
    assert len(set(steps)) == len(steps)
    assert [each.name for each in found] == [f"{name}/checkpoints/{step}" for step in steps]
    assert [each.epoch for each in found] == [step // 4 for step in steps]
    assert sum(each.best for each in found) == 1
    assert all(each.size_bytes > 0 and each.create_time.seconds for each in found)
    first = checkpoints(service, name, 1)
    rest = checkpoints(service, name, 10, first.next_page_token)
    assert [*first.checkpoints, *rest.checkpoints] == list(found)


def test_the_best_checkpoint_is_a_model_with_its_scores(service: Service) -> None:
    name = service.create(checkpoints__keep_best=True).name
    job = service.end(name)
    best = next(each for each in checkpoints(service, name).checkpoints if each.best)
    model = create(service, f"{name}/checkpoints/@best", "best")
    assert (model.name, model.training_job, model.checkpoint) == ("models/best", name, best.name)
    epochs = [e.epoch_completed for e in service.events(name) if e.HasField("epoch_completed")]
    assert model.validation_loss == next(e.validation_loss for e in epochs if e.step == best.step)
    assert model.spec == job.spec
    if best.step == job.progress.step:
        assert model.parameters_sha256 == job.result.parameters_sha256


def test_the_model_of_a_running_job_outlives_job_dataset_and_restart(tmp_path: Path) -> None:
    cluster = GatedCluster()
    with serving(tmp_path, cluster, checkpoint_seconds=0.0) as service:
        service.upload("flowers", FLOWERS)
        name = service.create().name
        assert cluster.entered.wait(SECONDS)
        cluster.let_through(3)
        eventually(lambda: [each.step for each in checkpoints(service, name).checkpoints] == [3, 2])
        model = create(service, f"{name}/checkpoints/@latest")
        assert model.name == f"models/{name.removeprefix('jobs/')}-3"
        assert not model.HasField("validation_loss")
        assert create(service, f"{name}/checkpoints/3") == model
        service.cancel(name)
        cluster.gate.set()
        # A cancelled job's checkpoints are there for as long as it is, also without its dataset.
        service.datasets.DeleteDataset(DeleteDatasetRequest(name="datasets/flowers"), timeout=SECONDS)
        last = create(service, f"{name}/checkpoints/@latest", "last")
        assert int(last.checkpoint.rpartition("/")[2]) >= 3
        eventually(lambda: _deleted(service, name))
    with serving(tmp_path) as service:
        found = service.models.GetModel(models_pb.GetModelRequest(name=model.name), timeout=SECONDS)
        assert found == model
        parts = list(service.models.DownloadModel(models_pb.DownloadModelRequest(name=model.name), timeout=SECONDS))
        assert sum(len(part.data) for part in parts) == model.size_bytes
        assert outputs(infer(service, infer_request(model.name.removeprefix("models/"), X))).shape == (len(X), 3)


def test_names_that_are_none_or_taken(service: Service) -> None:
    name = service.create().name
    service.end(name)
    for wrong in ("", name, f"{name}/checkpoints/", f"{name}/checkpoints/-1", "jobs/../checkpoints/1", "x" * 9999):
        found = refusal(partial(create, service, wrong))
        assert (found.code, list(found.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, ["checkpoint"])
    for missing in (f"{name}/checkpoints/7777", f"{name}/checkpoints/@best", "jobs/nobody/checkpoints/1"):
        assert refusal(partial(create, service, missing)).code == grpc.StatusCode.NOT_FOUND
    assert refusal(lambda: checkpoints(service, "jobs/nobody")).code == grpc.StatusCode.NOT_FOUND
    step = checkpoints(service, name).checkpoints[0].step
    other = service.create().name
    service.end(other)
    create(service, f"{name}/checkpoints/{step}", "taken")
    for source, model_id in ((f"{other}/checkpoints/@latest", "taken"), (f"{name}/checkpoints/{step}", other[5:])):
        found = refusal(partial(create, service, source, model_id))
        assert (found.code, found.reason) == (grpc.StatusCode.ALREADY_EXISTS, "MODEL_EXISTS")


def test_a_damaged_checkpoint_is_told_and_no_model(service: Service) -> None:
    name = service.create().name
    service.end(name)
    newest = checkpoints(service, name).checkpoints[0]
    folder = Path(service.addresses["data_dir"], "checkpoints", name.removeprefix("jobs/"))
    (path,) = folder.glob(f"step-{newest.step:012d}-*")
    path.write_bytes(path.read_bytes()[:-1])
    found = refusal(lambda: create(service, newest.name))
    assert (found.code, found.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CHECKPOINT_DAMAGED")


def _deleted(service: Service, name: str) -> bool:
    try:
        service.delete(name)
    except grpc.RpcError:
        return False
    return True
