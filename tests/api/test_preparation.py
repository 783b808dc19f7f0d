"""Jobs that take tables as users have them: what is prepared is kept with the job, and told by the model."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format

from chainrule import Client, DatasetFileError
from chainrule.inference import open_inference_pb2 as inference_pb
from chainrule.v1 import dataset_service_pb2 as datasets_pb
from chainrule.v1 import model_service_pb2 as models_pb
from chainrule.v1 import training_job_pb2 as job_pb
from chainrule.v1 import training_service_pb2 as pb
from service.data.preparation import FittedPreparation
from service.models.registry import Models
from tests.api.predicting import infer, outputs
from tests.api.running import SECONDS, SPEC, Service, refusal, serving
from tests.unit.client.test_cli import lines, run
from tests.unit.service.unreliable import GatedCluster

ROWS = 60


def table() -> bytes:
    random = np.random.default_rng(4)
    kinds = random.choice(["ape", "bee", "cat"], ROWS)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["legs", "weight", "colour", "animal"])
    for kind in kinds:
        legs = {"ape": 2, "bee": 6, "cat": 4}[kind]
        writer.writerow(
            [legs, "" if random.random() < 0.1 else legs + random.normal(), random.choice(["r", "g"]), kind]
        )
    return text.getvalue().encode()


ANIMALS = table()
DATA: dict[str, Any] = {
    "dataset": "datasets/animals",
    "targetColumn": "animal",
    "features": [{"columns": ["*"], "standardise": {}, "fillMean": True}, {"columns": ["colour"], "oneHot": {}}],
    "target": {"classes": {}},
}


def request(data: dict[str, Any], **changes: Any) -> pb.CreateTrainingJobRequest:
    made = pb.CreateTrainingJobRequest()
    spec = {**SPEC, "data": {**DATA, **data}, "epochs": 40, **changes}
    json_format.ParseDict({"trainingJob": {"spec": spec}}, made)
    return made


def create(service: Service, data: dict[str, Any], **changes: Any) -> job_pb.TrainingJob:
    return service.training.CreateTrainingJob(request(data, **changes), timeout=SECONDS)


@pytest.fixture
def animals(service: Service) -> Service:
    service.upload("animals", ANIMALS, format=datasets_pb.Dataset.CSV)
    return service


def test_a_table_is_learned_and_the_model_knows_how_it_was_prepared(animals: Service, tmp_path: Path) -> None:
    job = animals.end(create(animals, {}).name)
    assert job.state == job_pb.TrainingJob.SUCCEEDED, job.error
    assert job.result.validation_accuracy == 1
    assert list(job.spec.data.features[1].columns) == ["colour"]
    assert job.spec.data.target.WhichOneof("kind") == "classes"
    model = animals.models.GetModel(models_pb.GetModelRequest(name=job.result.model), timeout=SECONDS)
    assert list(model.input_shape) == [4]
    origin = Models(tmp_path / "models").get(job.name.removeprefix("jobs/")).origin
    assert origin is not None
    fitted = FittedPreparation.from_json(origin.preparation_json)
    assert fitted.classes == ("ape", "bee", "cat")
    assert fitted.columns == ("legs", "weight", "colour")
    again = animals.end(create(animals, {}).name)
    assert again.result.parameters_sha256 == job.result.parameters_sha256
    asked = models_pb.EvaluateModelRequest(name=job.result.model, dataset="datasets/animals")
    judged = animals.models.EvaluateModel(asked, timeout=SECONDS)
    assert (judged.rows, judged.scores["accuracy"]) == (ROWS, 1)
    asked.dataset = "datasets/flowers"
    assert "columns.legs" in refusal(lambda: animals.models.EvaluateModel(asked, timeout=SECONDS)).fields
    assert not list((tmp_path / "datasets").glob(".*"))
    assert not list((tmp_path / "checkpoints").glob("*/prepared"))
    numbers = {"legs": [2.0, 6.0, 4.0], "weight": [2.0, 6.0, 4.0]}
    question = inference_pb.ModelInferRequest(model_name=job.result.model.removeprefix("models/"))
    for name, values in numbers.items():
        tensor = question.inputs.add(name=name, datatype="FP64", shape=[3])
        tensor.contents.fp64_contents.extend(values)
    asked_colour = question.inputs.add(name="colour", datatype="BYTES", shape=[3])
    asked_colour.contents.bytes_contents.extend([b"r", b"g", b"blue"])
    assert outputs(infer(animals, question)).argmax(axis=1).tolist() == [0, 1, 2]
    raw = inference_pb.ModelInferRequest(model_name=question.model_name)
    for name, values in numbers.items():
        raw.inputs.add(name=name, datatype="FP64", shape=[3, 1])
        raw.raw_input_contents.append(np.array(values).tobytes())
    raw.inputs.add(name="colour", datatype="BYTES", shape=[3])
    raw.raw_input_contents.append(b"\1\0\0\0r\1\0\0\0g\4\0\0\0blue")
    answers = infer(animals, raw), infer(animals, question)
    np.testing.assert_array_equal(outputs(answers[0]), outputs(answers[1]))
    # Classes have names: in the model, and of the most probable class in every answer.
    assert list(model.classes) == ["ape", "bee", "cat"]
    assert answers[0].raw_output_contents[1] == b"\3\0\0\0ape\3\0\0\0bee\3\0\0\0cat"
    assert list(answers[1].outputs[1].contents.bytes_contents) == [b"ape", b"bee", b"cat"]
    assert [(tensor.name, list(tensor.shape)) for tensor in answers[1].outputs] == [("output", [3, 3]), ("class", [3])]
    question.outputs.add(name="class")
    assert [tensor.name for tensor in infer(animals, question).outputs] == ["class"]
    del question.outputs[:]
    del question.inputs[1]
    assert "no tensor for column 'weight'" in refusal(lambda: infer(animals, question)).fields["inputs"]
    file = b"".join(
        part.data
        for part in animals.models.DownloadModel(models_pb.DownloadModelRequest(name=job.result.model), timeout=SECONDS)
    )
    header = json.loads(file[8 : 8 + int.from_bytes(file[:8], "little")])
    assert header["__metadata__"]["preparation"] == fitted.to_json()
    # The file carries it all to another model.
    with Client(animals.addresses["grpc"]) as client:
        uploaded = client.upload_model(file, "brought")
        assert (uploaded.training_job, list(uploaded.classes)) == ("", ["ape", "bee", "cat"])
        rows: dict[str, list[Any]] = {**numbers, "colour": ["r", "g", "blue"], "animal": ["?"] * 3}
        np.testing.assert_array_equal(client.predict("brought", rows), outputs(answers[0]))
        assert client.evaluate_model("brought", "animals").scores == judged.scores
        (tmp_path / "rows.csv").write_text("animal,colour,legs,weight\n?,r,2,2\n?,g,6,\n")
        asked_again = ["predict", "brought", "-i", str(tmp_path / "rows.csv")]
        shown = run(*asked_again, CHAINRULE_SERVER=animals.addresses["grpc"]).stdout.splitlines()
        assert [line.split()[:2] for line in shown[-2:]] == [["0", "ape"], ["1", "bee"]]
        found = lines(run(*asked_again, "--json", CHAINRULE_SERVER=animals.addresses["grpc"]))
        assert [line["class"] for line in found] == ["ape", "bee"]
        with pytest.raises(DatasetFileError, match="no column 'weight', which brought takes"):
            client.predict("brought", {"legs": [1.0], "colour": ["r"]})
        with pytest.raises(DatasetFileError, match="takes a column each of 'legs', 'weight', 'colour'"):
            client.predict("brought", [[1.0, 2.0]])


def test_it_starts_with_the_same_numbers_after_a_restart(tmp_path: Path, cluster: GatedCluster) -> None:
    cluster.gate.set()
    with serving(tmp_path, cluster) as service:
        service.upload("animals", ANIMALS, format=datasets_pb.Dataset.CSV)
        expected = service.end(create(service, {}).name).result.parameters_sha256
        cluster.gate.clear()
        job = create(service, {})
        cluster.gate.set()
        service.stop()
    with serving(tmp_path, cluster) as service:
        assert service.end(job.name).result.parameters_sha256 == expected
        service.delete(job.name)
        assert not (tmp_path / "checkpoints" / job.name.removeprefix("jobs/")).exists()


def test_nothing_is_left_of_a_request_that_makes_no_job(animals: Service, tmp_path: Path) -> None:
    asked = request({})
    asked.validate_only = True
    animals.training.CreateTrainingJob(asked, timeout=SECONDS)
    refusal(lambda: create(animals, {}, network={"layers": [{"dense": {"units": 2}}]}))
    assert not list((tmp_path / "checkpoints").glob("*"))


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"features": [], "target": None, "inputColumn": "legs"}, "target_column", "'animal' holds text"),
    ({"features": [{"columns": ["*"], "standardise": {}}]}, "features[0].columns", "'colour' holds text"),
    ({"features": [{"columns": ["legs"]}]}, "features[0]", "says nothing; set one of standardise, scale"),
    ({"features": [{"asIs": {}}]}, "features[0].columns", "has 0 names"),
    ({"features": [{"columns": ["weight"], "asIs": {}}]}, "features[0].columns", "NaN or infinite; `fill`"),
    (
        {"features": [{"columns": ["legs"], "asIs": {}}, {"columns": ["colour"], "tokenise": {}}]},
        "features",
        "it must be the only one",
    ),
    ({"inputColumn": "animal"}, "input_column", "give the input its own"),
    ({"targetColumn": "plant"}, "target_column", "is 'plant', which datasets/animals doesn't have"),
]


@pytest.mark.parametrize(("data", "field", "problem"), WRONG)
def test_what_can_not_be_prepared_is_named(animals: Service, data: dict[str, Any], field: str, problem: str) -> None:
    refused = refusal(lambda: create(animals, data))
    assert problem in refused.fields[f"training_job.spec.data.{field}"]
