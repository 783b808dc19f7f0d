"""Jobs that are refused: each with a code, the field, and a sentence that says what would be right; nothing changes."""

import math
import re
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import json_format

from chainrule.v1 import training_service_pb2 as pb
from service.cluster.local_cluster import LocalCluster
from tests.api.running import ROWS, SECONDS, SPEC, Refusal, Service, X, Y, npz, refusal, request, serving

INVALID = grpc.StatusCode.INVALID_ARGUMENT

DATASETS = {
    "images": npz(x=X.reshape(ROWS, 2, 2), y=Y),
    "holes": npz(x=np.where(X[3, 2] == X, np.nan, X), y=Y),
    "endless": npz(x=np.where(X[3, 2] == X, np.inf, X), y=Y),
    "high": npz(x=X, y=Y + 1),
    "low": npz(x=X, y=Y - 1),
    "fractions": npz(x=X, y=Y / 2),
    "onehot": npz(x=X, y=np.eye(3, dtype=np.int64)[Y]),
    "others": npz(x=X, b=Y),
    "single": npz(x=X[:1], y=Y[:1]),
    "padded": npz(x=np.where(np.arange(ROWS)[:, np.newaxis] == 7, 0, X), y=Y),
    "huge": npz(x=X.astype(np.float64) * 1e300, y=Y),
}


@pytest.fixture(scope="module", autouse=True)
def _datasets(shared: Service) -> None:
    for name, data in DATASETS.items():
        shared.upload(name, data)


LAYERS = "network.layers"

WRONG: list[tuple[dict[str, Any], str, str]] = [
    # unknown layer, loss, optimizer or dataset
    ({"network__layers__1__relu": None}, f"{LAYERS}[1]", "says nothing; set one of dense, relu, tanh, sigmoid"),
    (
        {"network__layers__0__dense__initializer": 77},
        f"{LAYERS}[0].dense.initializer",
        "has the unknown value 77; one of GL",
    ),
    ({"network": None}, LAYERS, "has 0 layers; must have 1 to 1,000"),
    ({"loss": None}, "loss", "says nothing; set one of softmax_cross_entropy, mean_squared_error"),
    ({"data__dataset": "datasets/trees"}, "data.dataset", "there is no dataset datasets/trees; upload it first"),
    ({"data__dataset": "trees"}, "data.dataset", "is 'trees'; must be \"datasets/<id>\""),
    ({"data__dataset": "datasets/../flowers"}, "data.dataset", "is 'datasets/../flowers'; must be \"datasets/<id>\""),
    ({"data__dataset": None}, "data.dataset", 'is missing; must be "datasets/<id>"'),
    (
        {"data__input_column": "z"},
        "data.input_column",
        "is 'z', which datasets/flowers doesn't have; its columns: 'x', 'y'",
    ),
    (
        {"data__dataset": "datasets/others"},
        "data.target_column",
        "is 'y', which datasets/others doesn't have; its columns: 'x', 'b'",
    ),
    # zero or negative sizes, rates, workers, shards
    ({"network__layers__0__dense__units": 0}, f"{LAYERS}[0].dense.units", "is 0; must be 1 to 1,000,000"),
    ({"network__layers__0__dense__units": -4}, f"{LAYERS}[0].dense.units", "is -4; must be 1 to 1,000,000"),
    ({"optimizer__learning_rate": 0.0}, "optimizer.learning_rate", "is 0; must be above 0"),
    ({"optimizer__learning_rate": -0.1}, "optimizer.learning_rate", "is -0.1; must be above 0"),
    ({"optimizer__learning_rate": math.nan}, "optimizer.learning_rate", "is nan; must be above 0"),
    ({"optimizer__learning_rate": math.inf}, "optimizer.learning_rate", "is inf; must be above 0"),
    (
        {"optimizer__momentum__momentum": 1.0},
        "optimizer.momentum.momentum",
        "is 1; must be 0 up to, but not including, 1",
    ),
    ({"optimizer__adam__beta1": -0.5}, "optimizer.adam.beta1", "is -0.5; must be 0 up to, but not including, 1"),
    ({"optimizer__adam__epsilon": 0.0}, "optimizer.adam.epsilon", "is 0; must be above 0"),
    ({"epochs": 0}, "epochs", "is 0; must be 1 to 1,000,000"),
    ({"epochs": -1}, "epochs", "is -1; must be 1 to 1,000,000"),
    ({"batch_size": 0}, "batch_size", "is 0; must be 1 to 1,000,000"),
    ({"batch_size": 2**31 - 1}, "batch_size", "is 2147483647; must be 1 to 1,000,000"),
    ({"shards": 0}, "shards", "is 0; must be 1 to 8: no more than batch_size"),
    ({"shards": -2}, "shards", "is -2; must be 1 to 8: no more than batch_size"),
    ({"shards": 9}, "shards", "is 9; must be 1 to 8: no more than batch_size"),
    ({"workers": 0}, "workers", "is 0; must be 1 to 4: a worker needs a shard"),
    ({"workers": -1}, "workers", "is -1; must be 1 to 4: a worker needs a shard"),
    ({"shards": 3, "workers": 4}, "workers", "is 4; must be 1 to 3: a worker needs a shard"),
    ({"shards": 8, "workers": 5}, "workers", "is 5; the cluster has room for 4"),
    ({"data__validation_fraction": -0.2}, "data.validation_fraction", "is -0.2; must be 0 up to, but not including, 1"),
    ({"data__validation_fraction": 1.0}, "data.validation_fraction", "is 1; must be 0 up to, but not including, 1"),
    ({"data__dataset": "datasets/single"}, "data.validation_fraction", "must be 0, since the dataset has a single row"),
    # shapes that don't fit
    (
        {"data__dataset": "datasets/images"},
        "data.target_column",
        "'y': softmax cross-entropy needs a column of integers, one class number a row of shape (2,), since the",
    ),
    (
        {"data__dataset": "datasets/onehot"},
        "data.target_column",
        "'y': softmax cross-entropy needs a column of integers, one class number a row",
    ),
    (
        {"loss__mean_squared_error": ...},
        "data.target_column",
        "'y': has rows of shape (), but the network ends in (3,); mean squared error needs the same shape",
    ),
    (
        {"network__layers__0__dense__units": 10**6, "network__layers__2__dense__units": 1000},
        LAYERS,
        "has 1,005,001,000 parameters in all; must have at most 100,000,000",
    ),
    # the layer's own field, where that is what doesn't fit the shape that reaches it
    *(
        ({"network__layers": layers, "data__dataset": "datasets/images"}, f"{LAYERS}{field}", told)
        for layers, field, told in (
            (
                [{"reshape": {"shape": [2, 2, 1]}}, {"relu": {}}, {"conv2d": {"filters": 2, "kernel_size": [2, 3]}}],
                "[2].conv2d.kernel_size",
                "is 3, which reaches over 3 places, but the rows of shape (2, 2, 1) that reach it have 2,",
            ),
            ([{"pool1d": {"pool_size": [4]}}], "[0].pool1d.pool_size", "is 4, which reaches over 4 places, but the"),
            (
                [{"conv1d": {"filters": 3, "kernel_size": [1], "groups": 3}}],
                "[0].conv1d.groups",
                "is 3; must divide the c",
            ),
            ([{"group_norm": {"groups": 3}}], "[0].group_norm.groups", "is 3; must divide the 2 channels"),
            (
                [{"multi_head_attention": {"heads": 3}}],
                "[0].multi_head_attention.heads",
                "is 3, among which the 2 feat",
            ),
            (
                [{"flatten": {}}, {"quantum": {"qubits": 3}}],
                "[1].quantum.qubits",
                "is 3; the circuit then takes rows of",
            ),
            (
                [{"rescale": {"offset": [1, 2, 3]}}],
                "[0].rescale.offset",
                "has 3 numbers, but rows of shape (2, 2) reach",
            ),
            (
                [{"residual": {"layers": [{"tanh": {}}], "projection": [{"reshape": {"shape": [3]}}]}}],
                "[0].residual.projection[0].reshape.shape",
                "is (3,), which can't be made of rows of shape (2, 2), which have 4 numbers; give sizes whose product",
            ),
        )
    ),
    # labels out of range
    (
        {"data__dataset": "datasets/high"},
        "data.target_column",
        "'y': has classes from 1 to 3, but the network ends in 3 units, which is for classes 0 to 2",
    ),
    (
        {"data__dataset": "datasets/low"},
        "data.target_column",
        "'y': has classes from -1 to 1, but the network ends in 3 units",
    ),
    (
        {"data__dataset": "datasets/fractions"},
        "data.target_column",
        "'y': softmax cross-entropy needs a column of integers",
    ),
    # NaN in the data
    (
        {"data__dataset": "datasets/holes"},
        "data.input_column",
        "'x' has 1 elements that are NaN or infinite; upload it without",
    ),
    ({"data__dataset": "datasets/endless"}, "data.input_column", "'x' has 1 elements that are NaN or infinite"),
    # words and sequences
    (
        {"data__dataset": "datasets/padded", "network__padding": 0.0},
        "data.input_column",
        "'x' has nothing but padding (0) in row 7, counted from 0; leave such rows out",
    ),
    (
        {"network__layers__0__embedding__vocabulary": 0, "network__layers__0__embedding__size": 3},
        f"{LAYERS}[0].embedding.vocabulary",
        "is 0; must be 1 to 10,000,000",
    ),
    ({"data__dataset": "datasets/huge"}, "data.input_column", "'x' has elements from -"),
]


def refused(service: Service, asked: pb.CreateTrainingJobRequest) -> Refusal:
    """Also when it would only be checked; and nothing changes."""
    before = service.everything()
    found = refusal(lambda: service.training.CreateTrainingJob(asked, timeout=SECONDS))
    asked.validate_only = True
    assert refusal(lambda: service.training.CreateTrainingJob(asked, timeout=SECONDS)) == found
    assert service.everything() == before
    return found


@pytest.mark.parametrize(("changes", "field", "told"), WRONG, ids=[f"{field}: {told[:40]}" for _, field, told in WRONG])
def test_a_wrong_field(changes: dict[str, Any], field: str, told: str, shared: Service) -> None:
    asked = request(
        **{path: value for path, value in changes.items() if value is not ... and path != "network__layers"}
    )
    if layers := changes.get("network__layers"):
        asked.training_job.spec.network.ClearField("layers")
        json_format.ParseDict({"layers": layers}, asked.training_job.spec.network)
    if changes.get("loss__mean_squared_error"):
        asked.training_job.spec.loss.mean_squared_error.SetInParent()
    found = refused(shared, asked)
    path = f"training_job.spec.{field}"
    assert (found.code, found.domain) == (INVALID, "chainrule")
    assert list(found.fields) == [path]
    assert found.fields[path].startswith(told)
    assert found.message == f"{path}: {found.fields[path]}"
    reasons = {"there is no dataset": "DATASET_NOT_FOUND", "is 5; the cluster": "TOO_MANY_WORKERS"}
    assert found.reason == next((reason for text, reason in reasons.items() if told.startswith(text)), "INVALID_FIELD")


def test_more_memory_than_there_is(tmp_path: Path) -> None:
    with serving(tmp_path, LocalCluster(memory_bytes=1)) as service:
        service.upload("flowers", npz(x=X, y=Y))
        found = refused(service, request())
    assert (found.code, found.reason) == (INVALID, "TOO_LITTLE_MEMORY")
    told = re.fullmatch(
        r"needs ([0-9,]+) bytes for parameters, gradients and optimizer; the coordinator's machine has 1: use smaller "
        r"layers or fewer shards",
        found.fields[f"training_job.spec.{LAYERS}"],
    )
    assert told
    enough = int(told[1].replace(",", ""))
    with serving(tmp_path, LocalCluster(memory_bytes=enough)) as service:
        assert service.create().name


def test_all_wrong_fields_at_once(shared: Service) -> None:
    asked = request(epochs=0, batch_size=-1, shards=-1, workers=-1, optimizer__learning_rate=-1.0, data__dataset="x")
    asked.training_job.spec.loss.Clear()
    asked.training_job.spec.network.layers[1].Clear()
    fields = (
        "data.dataset",
        "network.layers[1]",
        "loss",
        "optimizer.learning_rate",
        "epochs",
        "batch_size",
        "shards",
        "workers",
    )
    assert list(refused(shared, asked).fields) == [f"training_job.spec.{field}" for field in fields]


def test_an_empty_request(shared: Service) -> None:
    found = refused(shared, pb.CreateTrainingJobRequest())
    assert list(found.fields) == [f"training_job.spec.{field}" for field in ("data.dataset", "network.layers", "loss")]


def test_more_wrong_fields_than_fit_into_headers(shared: Service) -> None:
    asked = request()
    for _ in range(900):
        asked.training_job.spec.network.layers.add()
    found = refused(shared, asked)
    assert (found.code, found.reason) == (INVALID, "INVALID_FIELD")
    assert next(iter(found.fields)) == "training_job.spec.network.layers[3]"
    assert found.message.endswith(f"; and {900 - len(found.fields)} more")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"display_name": "x" * 101}, "training_job.display_name"),
        ({"display_name": "two\nlines"}, "training_job.display_name"),
        ({"request_id": "x" * 101}, "request_id"),
        ({"request_id": "\N{SNOWMAN}"}, "request_id"),
        ({"request_id": "a\0b"}, "request_id"),
    ],
    ids=str,
)
def test_texts(changes: dict[str, Any], field: str, shared: Service) -> None:
    found = refused(shared, request(**changes))
    assert (found.code, list(found.fields)) == (INVALID, [field])
    assert "must be at most 100 printable" in found.fields[field]


@pytest.mark.parametrize("text", ["\N{SNOWMAN}" * 5_000, "\U000e0001" * 100_000, "'" * 1000, "\0" * 1000])
def test_any_text_gets_an_answer(text: str, shared: Service) -> None:
    """However long its repetition in the answer would be."""
    for field in ("data__dataset", "data__input_column"):
        found = refused(shared, request(**{field: text}))
        assert (found.code, list(found.fields)) == (INVALID, [f"training_job.spec.{field.replace('__', '.')}"])


def test_a_message_over_the_limit(shared: Service) -> None:
    before = shared.everything()
    found = refusal(lambda: shared.create(display_name="x" * (5 << 20)))
    assert found.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in found.message
    assert "4194304" in found.message
    assert shared.everything() == before


def test_validate_only_tells_the_defaults_and_creates_nothing(shared: Service) -> None:
    before = shared.everything()
    checked = shared.create(validate_only=True, shards=None, display_name="a job", request_id="r-9")
    assert (checked.name, checked.state, checked.display_name) == ("", 0, "a job")
    spec = checked.spec
    assert (spec.shards, spec.workers, spec.data.target_column, spec.data.validation_fraction) == (4, 2, "y", 0.2)
    assert (spec.epochs, spec.batch_size, spec.optimizer.momentum.momentum) == (SPEC["epochs"], SPEC["batchSize"], 0.9)
    assert shared.everything() == before
