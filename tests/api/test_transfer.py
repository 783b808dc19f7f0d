"""Jobs that start from models: what is frozen keeps its bits, the rest learns, and the model may go."""

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from safetensors.numpy import load

from chainrule.v1 import model_service_pb2 as models_pb
from chainrule.v1 import network_pb2 as pb
from chainrule.v1 import training_job_pb2 as job_pb
from service.training.checkpoints import Checkpoints
from tests.api.running import FLOWERS, SECONDS, Refusal, Service, refusal, request, serving
from tests.unit.service.unreliable import GatedCluster
from worker.arrays import Array

SUCCEEDED = job_pb.TrainingJob.SUCCEEDED


def tensors(service: Service, model: str) -> dict[str, Array]:
    request = models_pb.DownloadModelRequest(name=model)
    return load(b"".join(part.data for part in service.models.DownloadModel(request, timeout=SECONDS)))


def trained(service: Service, **changes: Any) -> job_pb.TrainingJob:
    job = service.end(service.create(**changes).name)
    assert job.state == SUCCEEDED, job.error
    return job


def test_what_is_frozen_keeps_its_bits_and_the_new_head_learns(service: Service) -> None:
    base = trained(service, network__layers__0__name="body", network__layers__2__name="head")
    changes = {
        "initial_model": base.result.model,
        "network__layers__0__name": "body",
        "network__layers__0__frozen": True,
        "network__layers__2__name": "new-head",
        "epochs": 15,
        "seed": 9,
    }
    job = trained(service, **changes)
    before, after = tensors(service, base.result.model), tensors(service, job.result.model)
    for name in ("layers.0.weight", "layers.0.bias"):
        assert after[name].tobytes() == before[name].tobytes()
    assert after["layers.2.weight"].tobytes() != before["layers.2.weight"].tobytes()
    epochs = [e.epoch_completed.training_loss for e in service.events(job.name) if e.HasField("epoch_completed")]
    assert epochs[-1] < epochs[0]
    assert (job.spec.initial_model, job.spec.network.layers[0].frozen) == (base.result.model, True)
    model = service.models.GetModel(models_pb.GetModelRequest(name=job.result.model), timeout=SECONDS)
    assert [layer.name for layer in model.network.layers] == ["body", "", "new-head"]
    assert not model.network.layers[0].frozen
    assert trained(service, **changes).result.parameters_sha256 == job.result.parameters_sha256
    slower = {**changes, "network__layers__2__learning_rate_scale": 0.1}
    assert trained(service, **slower).result.parameters_sha256 != job.result.parameters_sha256


def test_an_alias_stands_for_its_model_when_the_job_is_created(service: Service) -> None:
    first, second = (trained(service, seed=seed, epochs=1).result.model for seed in (1, 2))

    def give(model: str) -> None:
        service.models.SetModelAlias(models_pb.SetModelAliasRequest(name=model, alias="base"), timeout=SECONDS)

    give(first)
    asked = {"initial_model": "models/@base", "request_id": "once"}
    made = service.create(**asked)
    assert made.spec.initial_model == first
    give(second)
    assert service.create(**asked).name == made.name  # the same request, although the alias has moved on
    assert service.create(initial_model="models/@base").spec.initial_model == second
    assert service.create(initial_model="models/@latest").spec.initial_model != first
    refused = refusal(lambda: service.create(initial_model="models/@nothing"))
    assert "there is no model models/@nothing" in refused.fields["training_job.spec.initial_model"]


def test_it_goes_on_where_the_model_ended(service: Service) -> None:
    base = trained(service, epochs=30)
    job = trained(service, epochs=1, initial_model=base.result.model)
    assert job.result.training_loss < trained(service, epochs=1).result.training_loss
    assert abs(job.result.training_loss - base.result.training_loss) < 0.1


def test_the_model_may_go_once_the_job_is_there(tmp_path: Path, cluster: GatedCluster) -> None:
    """Also when the coordinator stops before the job's first checkpoint."""
    cluster.gate.set()
    with serving(tmp_path, cluster) as service:
        service.upload("flowers", FLOWERS)
        base = trained(service)
        start = {"initial_model": base.result.model, "network__layers__0__frozen": True, "request_id": "once"}
        expected = trained(service, **{**start, "request_id": "before"}).result.parameters_sha256
        body = tensors(service, base.result.model)["layers.0.weight"]
        cluster.gate.clear()
        job = service.create(**start)
        service.models.DeleteModel(models_pb.DeleteModelRequest(name=base.result.model), timeout=SECONDS)
        assert service.create(**start).name == job.name
        refused = refusal(lambda: service.create(**{**start, "request_id": "late"}))
        assert refused.reason == "MODEL_NOT_FOUND"
        kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
        cluster.gate.set()
        service.stop()
    with serving(tmp_path, cluster) as service:
        ended = service.end(job.name)
        assert ended.result.parameters_sha256 == expected
        assert tensors(service, ended.result.model)["layers.0.weight"].tobytes() == body.tobytes()
        taken = Checkpoints(tmp_path / "checkpoints" / job.name.removeprefix("jobs/")).load_initial()
        np.testing.assert_array_equal(taken["layers.0.weight"], body)
        assert job.name.removeprefix("jobs/") in kept
        service.delete(job.name)
        assert not (tmp_path / "checkpoints" / job.name.removeprefix("jobs/")).exists()


SPEC = "training_job.spec"
LAYERS = f"{SPEC}.network.layers"
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"initial_model": "flowers"}, f"{SPEC}.initial_model", "is 'flowers'; must be \"models/<id>\" or"),
    (
        {"initial_model": "models/nobody"},
        f"{SPEC}.initial_model",
        "there is no model models/nobody; train or upload it first",
    ),
    ({"network__layers__0__name": "Body!"}, f"{LAYERS}[0].name", "is 'Body!'; must have 1 to 63 lower-case letters"),
    ({"network__layers__0__name": "a" * 64}, f"{LAYERS}[0].name", "must have 1 to 63"),
    (
        {"network__layers__0__name": "body", "network__layers__2__name": "body"},
        f"{LAYERS}[2].name",
        "is 'body', as that of layers[0]; names must be unique",
    ),
    *(
        ({"network__layers__0__learning_rate_scale": scale}, f"{LAYERS}[0].learning_rate_scale", f"is {scale:g}; must")
        for scale in (0.0, -1.0, np.nan, np.inf, 1e7)
    ),
    (
        {"network__layers__0__frozen": True, "network__layers__2__frozen": True},
        LAYERS,
        "is a frozen network with nothing to learn; leave a layer with parameters unfrozen",
    ),
]


@pytest.mark.parametrize(("changes", "field", "description"), WRONG)
def test_a_start_that_can_not_be_is_refused(
    shared: Service, changes: dict[str, Any], field: str, description: str
) -> None:
    before = shared.everything()
    found = refusal(lambda: shared.create(**changes))
    assert found.code == grpc.StatusCode.INVALID_ARGUMENT
    assert list(found.fields) == [field]
    assert description in found.fields[field]
    assert shared.everything() == before


@pytest.mark.parametrize("inner", [{"name": "a"}, {"frozen": True}, {"fresh": True}, {"learning_rate_scale": 0.0}])
def test_layers_within_layers_have_no_part_of_their_own(shared: Service, inner: dict[str, Any]) -> None:
    layer = pb.Layer(residual=pb.Residual(layers=[pb.Layer(dense=pb.Dense(units=4), **inner)]))
    network = pb.Network(layers=[layer, pb.Layer(dense=pb.Dense(units=3))])
    asked = request()
    asked.training_job.spec.network.CopyFrom(network)
    found: Refusal = refusal(lambda: shared.training.CreateTrainingJob(asked, timeout=SECONDS))
    (field,) = inner
    assert found.fields == {f"{LAYERS}[0].{field}": "is set on a layer within this one; set it on this one alone"}
