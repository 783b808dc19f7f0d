"""Jobs that learn from windows over rows in the order of time, and models that take windows of such rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format

from chainrule.inference import open_inference_pb2 as inference_pb
from chainrule.inference import open_inference_pb2_grpc as inference_stubs
from chainrule.v1 import dataset_service_pb2 as datasets_pb
from chainrule.v1 import model_service_pb2 as models_pb
from chainrule.v1 import training_job_pb2 as job_pb
from chainrule.v1 import training_service_pb2 as pb
from tests.api.predicting import infer, outputs
from tests.api.running import SECONDS, Service, refusal
from tests.unit.client.test_cli import run
from worker.arrays import Array

ROWS, LENGTH, AHEAD, TARGETS = 200, 6, 2, 3
HOURS = np.arange(ROWS)
DEMAND = 500 + 100 * np.sin(HOURS / 3) + HOURS
DAY = np.array(["work", "rest"])[HOURS // 24 % 2]
SPEC: dict[str, Any] = {
    "data": {
        "dataset": "datasets/hours",
        "targetColumn": "demand",
        "features": [{"columns": ["demand"], "standardise": {}}, {"columns": ["day"], "oneHot": {}}],
        "target": {"standardise": {}},
        "windows": {"length": LENGTH, "ahead": AHEAD, "targets": TARGETS},
    },
    "network": {"layers": [{"flatten": {}}, {"dense": {"units": TARGETS}}]},
    "loss": {"meanSquaredError": {}},
    "optimizer": {"learningRate": 0.05},
    "epochs": 60,
}


def request(**data: Any) -> pb.CreateTrainingJobRequest:
    made = pb.CreateTrainingJobRequest()
    given = {name: value for name, value in (SPEC["data"] | data).items() if value is not None}
    json_format.ParseDict({"trainingJob": {"spec": {**SPEC, "data": given}}}, made)
    return made


def create(service: Service, **data: Any) -> job_pb.TrainingJob:
    return service.training.CreateTrainingJob(request(**data), timeout=SECONDS)


def table(demand: Array) -> bytes:
    """As csv, from the first hour on."""
    lines = [f"{number!r},{text}" for number, text in zip(demand.tolist(), DAY.tolist(), strict=False)]
    return "\n".join(["demand,day", *lines]).encode()


def windows_of(column: Array) -> Array:
    return np.stack([column[start : start + LENGTH] for start in range(ROWS - LENGTH - AHEAD - TARGETS + 2)])


@pytest.fixture
def hours(service: Service) -> Service:
    service.upload("hours", table(DEMAND), format=datasets_pb.Dataset.CSV)
    return service


def test_a_model_takes_windows_and_tells_what_lies_ahead_in_its_own_units(hours: Service, tmp_path: Path) -> None:
    job = hours.end(create(hours).name)
    assert job.state == job_pb.TrainingJob.SUCCEEDED, job.error
    assert job.spec.data.split == job.spec.data.LAST
    assert job.spec.data.windows.length == LENGTH
    model = hours.models.GetModel(models_pb.GetModelRequest(name=job.result.model), timeout=SECONDS)
    assert list(model.input_shape) == [LENGTH, 3]
    described = inference_stubs.GRPCInferenceServiceStub(hours.channel).ModelMetadata(
        inference_pb.ModelMetadataRequest(name=model.name), timeout=SECONDS
    )
    assert {tensor.name: (tensor.datatype, list(tensor.shape)) for tensor in described.inputs} == {
        "demand": ("FP64", [-1, LENGTH]),
        "day": ("BYTES", [-1, LENGTH]),
    }
    demand, day = windows_of(DEMAND), windows_of(DAY)
    question = inference_pb.ModelInferRequest(model_name=model.name)
    tensor = question.inputs.add(name="demand", datatype="FP64", shape=demand.shape)
    tensor.contents.fp64_contents.extend(demand.flat)
    tensor = question.inputs.add(name="day", datatype="BYTES", shape=day.shape)
    tensor.contents.bytes_contents.extend(text.encode() for text in day.flat)
    predicted = outputs(infer(hours, question))
    first = np.arange(len(demand)) + LENGTH - 1 + AHEAD
    truth = DEMAND[first[:, np.newaxis] + np.arange(TARGETS)]
    assert np.abs(predicted - truth).mean() < 20
    # The same rows judged by the service, in units of the training targets' deviation.
    judged = hours.models.EvaluateModel(
        models_pb.EvaluateModelRequest(name=model.name, dataset="datasets/hours"), timeout=SECONDS
    )
    assert judged.rows == len(demand)
    used = len(demand) - (TARGETS - 1)
    trained = used - round(0.2 * used)
    learned = DEMAND[: trained + LENGTH + AHEAD + TARGETS - 2]
    np.testing.assert_allclose(
        judged.scores["rmse"] * learned.std(), np.sqrt(np.square(predicted - truth).mean()), rtol=1e-4
    )
    # The command line asks about every window of a file's rows.
    (tmp_path / "rows.csv").write_bytes(table(DEMAND))
    file = tmp_path / "forecasts.npy"
    asked = ["predict", model.name, "-i", str(tmp_path / "rows.csv"), "-o", str(file)]
    assert run(*asked, CHAINRULE_SERVER=hours.addresses["grpc"]).exit_code == 0
    forecasts = np.load(file)
    assert len(forecasts) == ROWS - LENGTH + 1
    np.testing.assert_array_equal(forecasts[: len(predicted)], predicted)
    del question.inputs[1]
    question.inputs[0].shape[1] = LENGTH - 1
    assert f"each row is a window of {LENGTH} rows" in refusal(lambda: infer(hours, question)).fields["inputs[0].shape"]


def test_what_is_to_be_predicted_teaches_nothing(hours: Service) -> None:
    changed = DEMAND.copy()
    used = len(windows_of(DEMAND)) - (TARGETS - 1)
    first_held_out = ROWS - (round(0.2 * used) + TARGETS - 1)
    changed[first_held_out:] = -1e6
    hours.upload("other", table(changed), format=datasets_pb.Dataset.CSV)
    known, other = (hours.end(create(hours, dataset=f"datasets/{name}").name).result for name in ("hours", "other"))
    assert known.parameters_sha256 == other.parameters_sha256
    assert known.validation_loss != other.validation_loss
    changed[first_held_out - 1] = -1e6
    hours.upload("third", table(changed), format=datasets_pb.Dataset.CSV)
    assert hours.end(create(hours, dataset="datasets/third").name).result.parameters_sha256 != known.parameters_sha256


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"windows": {"length": 0}}, "windows.length", "is 0; must be 1 to 10,000 rows"),
    ({"features": []}, "features", "windows need features"),
    ({"features": [{"columns": ["day"], "tokenise": {}}]}, "windows", "tokenise"),
    ({"weightColumn": "demand"}, "weight_column", "leave it out"),
    ({"split": "RANDOM"}, "split", "windows overlap"),
]


@pytest.mark.parametrize(("data", "field", "problem"), WRONG)
def test_windows_that_can_not_be_are_named(hours: Service, data: dict[str, Any], field: str, problem: str) -> None:
    assert problem in refusal(lambda: create(hours, **data)).fields[f"training_job.spec.data.{field}"]


def test_a_series_that_is_too_short_is_refused(hours: Service) -> None:
    refused = refusal(lambda: create(hours, windows={"length": 190, "targets": 6}))
    assert refused.fields["training_job.spec.data.windows"] == (
        "and their targets take 201 rows at least, so that some can be learned from; datasets/hours has 200"
    )
    job = hours.end(create(hours).name)
    hours.upload("short", table(DEMAND[:9]), format=datasets_pb.Dataset.CSV)
    asked = models_pb.EvaluateModelRequest(name=job.result.model, dataset="datasets/short")
    refused = refusal(lambda: hours.models.EvaluateModel(asked, timeout=SECONDS))
    assert refused.fields["dataset"] == "datasets/short has 9 rows; a window and its target take 10"
