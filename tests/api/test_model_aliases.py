"""Aliases, evaluations and lineage over gRPC, of models that were really trained."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from chainrule.v1 import model_service_pb2 as pb
from chainrule.v1 import network_pb2
from chainrule.v1 import training_service_pb2 as training_pb
from chainrule.v1.dataset_service_pb2 import Dataset, DeleteDatasetRequest
from tests.api.predicting import infer, infer_request, outputs
from tests.api.running import FLOWERS, SECONDS, Service, X, Y, npz, refusal, serving

LOSS = network_pb2.Loss()
LOSS.mean_squared_error.SetInParent()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, str, str]]:
    """A coordinator and the names of two models, the older first."""
    with serving(tmp_path_factory.mktemp("data")) as service:
        service.upload("flowers", FLOWERS)
        names = [service.end(service.create(seed=seed).name).result.model for seed in (1, 2)]
        yield service, names[0], names[1]


def get(service: Service, name: str) -> pb.Model:
    return service.models.GetModel(pb.GetModelRequest(name=name), timeout=SECONDS)


def give(service: Service, alias: str, name: str) -> pb.Model:
    return service.models.SetModelAlias(pb.SetModelAliasRequest(name=name, alias=alias), timeout=SECONDS)


def take(service: Service, alias: str) -> None:
    service.models.DeleteModelAlias(pb.DeleteModelAliasRequest(alias=alias), timeout=SECONDS)


def evaluate(service: Service, name: str, **fields: Any) -> pb.EvaluateModelResponse:
    request = pb.EvaluateModelRequest(**{"name": name, "dataset": "datasets/flowers", **fields})
    return service.models.EvaluateModel(request, timeout=SECONDS)


# Aliases


def test_an_alias_is_a_name_wherever_a_model_has_one(trained: tuple[Service, str, str]) -> None:
    service, model, _ = trained
    assert list(give(service, "staging", model).aliases) == ["staging"]
    name = "models/@staging"
    assert get(service, name).name == model
    downloads = [
        b"".join(part.data for part in service.models.DownloadModel(pb.DownloadModelRequest(name=each)))
        for each in (name, model)
    ]
    assert downloads[0] == downloads[1]
    assert evaluate(service, name).model == model
    for spelled in ("@staging", name):
        assert f"models/{infer(service, infer_request(spelled, X)).model_name}" == model
    take(service, "staging")
    found = refusal(lambda: get(service, name))
    assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    assert list(get(service, model).aliases) == []


def test_an_alias_moves_and_another_takes_its_model(trained: tuple[Service, str, str]) -> None:
    service, older, newer = trained
    give(service, "staging", newer)
    give(service, "production", older)
    before = outputs(infer(service, infer_request("@production", X)))
    assert give(service, "production", "models/@staging").name == newer
    after = outputs(infer(service, infer_request("@production", X)))
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(after, outputs(infer(service, infer_request(newer, X))))
    assert list(get(service, newer).aliases) == ["production", "staging"]
    listed = service.models.ListModels(pb.ListModelsRequest(), timeout=SECONDS).models
    assert {model.name: list(model.aliases) for model in listed} == {newer: ["production", "staging"], older: []}
    for alias in ("production", "staging"):
        take(service, alias)


def test_latest_is_always_the_newest(trained: tuple[Service, str, str]) -> None:
    service, older, newer = trained
    assert get(service, "models/@latest").name == newer
    found = refusal(lambda: give(service, "latest", older))
    assert found.fields == {"alias": "is 'latest', which is kept by the service: always the newest model"}
    assert refusal(lambda: take(service, "latest")).code == grpc.StatusCode.NOT_FOUND


def test_without_any_model(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        found = refusal(lambda: get(service, "models/@latest"))
        assert (found.code, found.message) == (grpc.StatusCode.NOT_FOUND, "there is no model models/@latest")


def test_aliases_outlive_the_coordinator_and_not_their_model(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        service.upload("flowers", FLOWERS)
        model = service.end(service.create(epochs=1).name).result.model
        give(service, "production", model)
    with serving(tmp_path) as service:
        assert get(service, "models/@production").name == model
        (tmp_path / model).rename(tmp_path / "models" / ".gone")
        found = refusal(lambda: get(service, "models/@production"))
        assert found.code == grpc.StatusCode.NOT_FOUND
        assert found.message == f"there is no model models/@production: it stood for {model}, which was deleted"
        assert refusal(lambda: give(service, "x", model)).code == grpc.StatusCode.NOT_FOUND
    assert json.loads((tmp_path / "aliases.json").read_text()) == {"production": model.removeprefix("models/")}


@pytest.mark.parametrize("alias", ["", "@production", "Production", "a/b", "../x", "x" * 64])
def test_aliases_that_are_none(trained: tuple[Service, str, str], alias: str) -> None:
    service, model, _ = trained
    for call in (lambda: give(service, alias, model), lambda: take(service, alias)):
        found = refusal(call)
        assert (found.code, list(found.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, ["alias"])


@pytest.mark.parametrize("name", ["", "models", "models/", "models/@", "models/@@a", "models/@../x", "jobs/@a", "@a"])
def test_names_that_are_none(trained: tuple[Service, str, str], name: str) -> None:
    service, _, _ = trained
    for call in (lambda: get(service, name), lambda: give(service, "a", name), lambda: evaluate(service, name)):
        found = refusal(call)
        assert (found.code, list(found.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, ["name"])


# Evaluation


def test_a_model_is_judged_as_its_outputs_say(trained: tuple[Service, str, str]) -> None:
    service, model, _ = trained
    logits = outputs(infer(service, infer_request(model, X))).astype(float)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    losses = -np.log(chances[np.arange(len(Y)), Y])
    found = evaluate(service, model)
    assert (found.model, found.rows) == (model, len(X))
    assert found.loss == pytest.approx(losses.mean(), rel=1e-5)
    assert found.scores["accuracy"] == pytest.approx((logits.argmax(axis=1) == Y).mean())
    assert found.duration_seconds > 0

    weights = np.arange(len(X), dtype=np.float32)
    service.upload("weighed", npz(x=X, y=Y, w=weights))
    weighed = evaluate(service, model, dataset="datasets/weighed", weight_column="w")
    assert weighed.loss == pytest.approx(np.average(losses, weights=weights), rel=1e-5)


def test_another_loss_and_other_columns(trained: tuple[Service, str, str]) -> None:
    service, model, _ = trained
    targets = np.ones((len(X), 3), np.float32)
    service.upload("others", npz(inputs=X, targets=targets))
    named = {"dataset": "datasets/others", "input_column": "inputs", "target_column": "targets"}
    found = evaluate(service, model, loss=LOSS, **named)
    logits = outputs(infer(service, infer_request(model, X)))
    assert found.loss == pytest.approx(np.square(logits - targets).mean(), rel=1e-5)
    assert "accuracy" not in found.scores


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no dataset": ({"dataset": ""}, "dataset", "is missing"),
    "no such input": ({"input_column": "z"}, "input_column", "is 'z', which datasets/flowers doesn't have"),
    "no such target": ({"target_column": "z"}, "target_column", "its columns: 'x', 'y'"),
    "no such weights": ({"weight_column": "z"}, "weight_column", "is 'z'"),
    "inputs of another shape": ({"input_column": "y"}, "input_column", "has rows of shape (); the model takes (4,)"),
    "targets of another kind": ({"target_column": "x"}, "target_column", "'x': softmax cross-entropy needs"),
    "a loss that says nothing": ({"loss": network_pb2.Loss()}, "loss", "says nothing"),
    "a loss that does not fit": ({"loss": LOSS}, "target_column", "mean squared error needs the same shape"),
}


def test_text_is_nothing_to_judge_by(trained: tuple[Service, str, str]) -> None:
    service, model, _ = trained
    service.upload("text", b"x,y,w\na,b,c\nd,e,f\n", format=Dataset.CSV)
    columns = {"dataset": "datasets/text", "weight_column": "w"}
    found = refusal(lambda: evaluate(service, model, **columns))
    assert list(found.fields) == ["input_column", "target_column", "weight_column"]
    assert all("holds text" in description for description in found.fields.values())


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_model_cannot_be_judged_by(trained: tuple[Service, str, str], case: str) -> None:
    service, model, _ = trained
    changes, field, text = REFUSED[case]
    found = refusal(lambda: evaluate(service, model, **changes))
    assert (found.code, list(found.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, [field])
    assert text in found.fields[field]


def test_what_is_not_there(trained: tuple[Service, str, str]) -> None:
    service, model, _ = trained
    for name, dataset in ((model, "datasets/nothing"), ("models/nobody", "datasets/flowers")):
        assert refusal(lambda n=name, d=dataset: evaluate(service, n, dataset=d)).code == grpc.StatusCode.NOT_FOUND  # type: ignore[misc]


def test_a_model_of_which_the_loss_is_not_known(tmp_path: Path) -> None:
    """As one from before models kept it."""
    with serving(tmp_path) as service:
        service.upload("flowers", FLOWERS)
        model = service.end(service.create(epochs=1).name).result.model
        file = tmp_path / model / "model.json"
        kept = {
            name: value
            for name, value in json.loads(file.read_text()).items()
            if name not in ("origin", "input_column")
        }
        file.write_text(json.dumps(kept))
        found = get(service, model)
        assert (found.HasField("loss"), found.HasField("spec"), found.input_column) == (False, False, "x")
        assert refusal(lambda: evaluate(service, model)).fields == {
            "loss": f"is missing; it is not known which one {model} was trained with"
        }
        loss = network_pb2.Loss()
        loss.softmax_cross_entropy.SetInParent()
        assert evaluate(service, model, loss=loss).rows == len(X)


# Lineage


def test_a_model_says_how_it_was_made(trained: tuple[Service, str, str], tmp_path: Path) -> None:
    """So that it can be made again, with the same bits, though its job and dataset may be gone."""
    service, model, _ = trained
    found = get(service, model)
    job = service.get(found.training_job)
    assert found.spec == job.spec
    assert (found.loss, found.input_column, found.spec.seed) == (job.spec.loss, "x", 1)
    service.delete(job.name)
    assert get(service, model).spec == job.spec
    with serving(tmp_path) as other:
        assert other.upload("flowers", FLOWERS).sha256 == found.dataset_sha256
        again = training_pb.CreateTrainingJobRequest()
        again.training_job.spec.CopyFrom(found.spec)
        made = other.end(other.training.CreateTrainingJob(again, timeout=SECONDS).name)
        assert made.result.parameters_sha256 == found.parameters_sha256


def test_a_dataset_may_go_before_its_model(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        service.upload("flowers", FLOWERS)
        model = service.end(service.create(epochs=1).name).result.model
        service.datasets.DeleteDataset(DeleteDatasetRequest(name="datasets/flowers"), timeout=SECONDS)
        assert outputs(infer(service, infer_request(model, X))).shape == (len(X), 3)
        assert refusal(lambda: evaluate(service, model)).reason == "DATASET_NOT_FOUND"
