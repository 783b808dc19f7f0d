"""Jobs that learn to act, over gRPC: they learn, and what can't be is named."""

from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from chainrule.v1 import training_job_pb2 as job_pb
from chainrule.v1 import training_service_pb2 as pb
from chainrule.v1.model_service_pb2 import GetModelRequest
from tests.api.running import SECONDS, Refusal, Service, refusal

CARTPOLE: dict[str, Any] = {
    "environment": {"name": "CartPole-v1", "episodes": 48, "validation_episodes": 8, "entropy_weight": 0.01},
    "network": {"layers": [{"dense": {"units": 16}}, {"tanh": {}}, {"dense": {"units": 3}}]},
    "optimizer": {"adam": {}, "learning_rate": 0.02},
    "epochs": 4,
    "batch_size": 12,
    "shards": 4,
}


def create(service: Service, **changes: Any) -> job_pb.TrainingJob:
    spec = json_format.ParseDict({**CARTPOLE, **changes}, job_pb.TrainingJobSpec())
    return service.training.CreateTrainingJob(
        pb.CreateTrainingJobRequest(training_job=job_pb.TrainingJob(spec=spec)), timeout=SECONDS
    )


def test_it_learns_and_gives_the_same_bits_on_any_number_of_workers(shared: Service) -> None:
    ends = [shared.end(create(shared, workers=workers).name) for workers in (1, 2)]
    assert {job.state for job in ends} == {job_pb.TrainingJob.SUCCEEDED}
    assert len({job.result.parameters_sha256 for job in ends}) == 1
    job = ends[0]
    assert job.spec.environment.discount == 0.99  # a default that was filled in
    assert not job.spec.HasField("data")
    epochs = [event.epoch_completed for event in shared.events(job.name) if event.HasField("epoch_completed")]
    returns = [epoch.training_scores["return"] for epoch in epochs]
    # An undirected policy falls after about 20 steps.
    assert returns[0] < 40 < returns[-1]
    assert job.result.validation_scores["return"] == -job.result.validation_loss
    assert job.progress.samples == 4 * 48


def test_its_model_can_be_had(shared: Service) -> None:
    job = shared.end(create(shared, epochs=1).name)
    model = shared.models.GetModel(GetModelRequest(name=job.result.model), timeout=SECONDS)
    assert list(model.input_shape) == [4]


LAYERS = CARTPOLE["network"]["layers"]


@pytest.mark.parametrize(
    ("changes", "field", "told"),
    [
        ({"environment": {"name": "Doom-v1"}}, "environment.name", "is 'Doom-v1'; there are CartPole-v1, Acrobot-v1"),
        ({"environment": {"name": "os:system"}}, "environment.name", "is 'os:system'; there are"),
        (
            {"environment": {"name": "CartPole-v1", "discount": 1}},
            "environment.discount",
            "is 1; must be 0 up to, but not including, 1",
        ),
        ({"data": {"dataset": "datasets/flowers"}}, "data", "is given beside environment, which takes its place"),
        ({"loss": {"mean_squared_error": {}}}, "loss", "is given beside environment, which takes its place"),
        (
            {"network": {"layers": [{"dense": {"units": 2}}]}},
            "network.layers",
            "end in (2,); must end in (3,): a logit for each of the 2 actions of CartPole-v1, and the return",
        ),
        (
            {"network": {"layers": [LAYERS[0], {"batch_norm": {}}, LAYERS[2]]}},
            "network.layers[1].batch_norm",
            "can't be used to act: it counts rows, and an episode has many",
        ),
        (
            {"network": {"layers": [{"conv2d": {"filters": 2, "kernel_size": [3]}}]}},
            "network.layers[0].conv2d",
            "conv2d takes",
        ),
        (
            {"early_stopping": {"score": "accuracy"}},
            "early_stopping.score",
            "is 'accuracy'; the scores that come with this loss: return",
        ),
        (
            {"batch_size": 1_000_000, "shards": 1},
            "network.layers",
            "makes 19,500,000,000 numbers for the 1,000,000 rows",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_is_named(shared: Service, changes: dict[str, Any], field: str, told: str) -> None:
    refused: Refusal = refusal(lambda: create(shared, **changes))
    assert refused.code == grpc.StatusCode.INVALID_ARGUMENT
    assert refused.fields[f"training_job.spec.{field}"].startswith(told)
