"""Models: files that others can read, and descriptions that come back as they were."""

import hashlib
import json
import os
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from service.errors import NotFound
from service.files import remove_directory
from service.models.registry import CHUNK_BYTES, FILE, Model, Models, Origin, parameters_sha256
from service.wire.job import layers_json
from tests.unit.service.examples import FEATURES, NOON, SPEC, task
from worker.layers import Dense, ReLU
from worker.network import Network

NETWORK = task().network
PARAMS = NETWORK.initial(seed=4)


def add(models: Models, model_id: str = "model-a", seconds: int = 0) -> Model:
    validation = (0.25, 0.75, {"accuracy": 0.75, "f1": 0.5})
    return models.add(model_id, NETWORK, layers_json(SPEC), PARAMS, validation, NOON + timedelta(seconds=seconds))


def test_what_is_known_of_one(tmp_path: Path) -> None:
    made = add(Models(tmp_path))
    data = (tmp_path / "model-a" / FILE).read_bytes()
    assert made == Model(
        id="model-a",
        layers_json=layers_json(SPEC),
        input_shape=(FEATURES,),
        parameter_count=PARAMS.size,
        parameters_sha256=hashlib.sha256(PARAMS.astype("<f4").tobytes()).hexdigest(),
        validation_loss=0.25,
        validation_accuracy=0.75,
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        created=NOON,
        validation_scores={"accuracy": 0.75, "f1": 0.5},
    )
    assert made.name == "models/model-a"
    assert Models(tmp_path).get("model-a") == made


def test_without_validation_rows(tmp_path: Path) -> None:
    made = Models(tmp_path).add("model-a", NETWORK, layers_json(SPEC), PARAMS, (None, None, {}), NOON)
    assert Models(tmp_path).get("model-a") == made


def test_the_safetensors_library_reads_it(tmp_path: Path) -> None:
    add(Models(tmp_path))
    tensors = load_file(tmp_path / "model-a" / FILE)
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        "layers.0.weight": (4, 5),
        "layers.0.bias": (5,),
        "layers.2.weight": (5, 3),
        "layers.2.bias": (3,),
    }
    assert b"".join(tensors[slot.name].tobytes() for slot in NETWORK.slots) == PARAMS.tobytes()
    with safe_open(tmp_path / "model-a" / FILE, framework="numpy") as file:
        metadata = file.metadata()
    assert (metadata["format"], json.loads(metadata["input_shape"])) == ("chainrule", [FEATURES])
    kinds = [next(iter(layer)) for layer in json.loads(metadata["network"])["layers"]]
    assert kinds == ["dense", "relu", "dense"]


def test_its_file_comes_in_parts(tmp_path: Path) -> None:
    models = Models(tmp_path)
    large = Network((Dense(300), ReLU(), Dense(1000)), (300,))
    params = large.initial(seed=5)
    made = models.add("model-a", large, layers_json(SPEC), params, (None, None, {}), NOON)
    parts = list(models.chunks("model-a"))
    assert [offset for offset, _ in parts] == [0, CHUNK_BYTES]
    data = b"".join(part for _, part in parts)
    assert (len(data), hashlib.sha256(data).hexdigest()) == (made.size_bytes, made.sha256)


def test_a_model_from_before_a_crash_is_kept(tmp_path: Path) -> None:
    made = add(Models(tmp_path))
    again = Models(tmp_path).add("model-a", NETWORK, "{}", PARAMS + 1, (None, None, {}), NOON + timedelta(1))
    assert again == made


def test_the_list_is_by_age(tmp_path: Path) -> None:
    models = Models(tmp_path)
    for name, seconds in (("b", 2), ("a", 3), ("c", 1), ("d", 2)):
        add(models, name, seconds)
    (tmp_path / ".e.crashed").mkdir()
    assert [model.id for model in models.all()] == ["c", "b", "d", "a"]
    assert [path.name for path in tmp_path.glob(".*")] == [".e.crashed"]
    assert len(Models(tmp_path).all()) == 4
    assert list(tmp_path.glob(".*")) == []


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no model models/nobody"):
        Models(tmp_path).get("nobody")
    with pytest.raises(NotFound):
        next(Models(tmp_path).chunks("nobody"))


def test_the_fingerprint_is_of_the_numbers() -> None:
    numbers = np.arange(3, dtype=np.float32)
    expected = hashlib.sha256(b"\0\0\0\0\0\0\x80\x3f\0\0\0\x40").hexdigest()
    for same in (numbers, numbers.astype(">f4"), np.repeat(numbers, 2)[::2]):
        assert parameters_sha256(same) == expected
    assert parameters_sha256(-numbers) != expected
    doubles = hashlib.sha256(np.arange(3, dtype="<f8").tobytes()).hexdigest()
    for same in (numbers.astype(np.float64), numbers.astype(">f8")):
        assert parameters_sha256(same) == doubles


def test_one_of_double_precision_keeps_every_digit(tmp_path: Path) -> None:
    params = NETWORK.initial(4, np.float64)
    made = Models(tmp_path).add("model-a", NETWORK, layers_json(SPEC), params, (0.25, None, {}), NOON)
    tensors = load_file(tmp_path / "model-a" / FILE)
    np.testing.assert_array_equal(np.concatenate([tensors[slot.name].ravel() for slot in NETWORK.slots]), params)
    assert made.parameters_sha256 == hashlib.sha256(params.astype("<f8").tobytes()).hexdigest()


def test_the_newest_is_known_at_once(tmp_path: Path) -> None:
    """However fast one follows the other, and however often it is asked for."""
    models = Models(tmp_path)
    assert models.newest() is None
    for number in range(20):
        add(models, f"m{number}", number)
        assert models.newest() == models.newest() == f"m{number}"
    old = time.time() - 100
    os.utime(tmp_path, (old, old))
    assert models.newest() == models.newest() == "m19"
    add(models, "earlier", -1)
    assert models.newest() == "m19"
    remove_directory(tmp_path / "m19")
    assert models.newest() == "m18"


def test_how_it_was_made_is_kept(tmp_path: Path) -> None:
    origin = Origin('{"softmaxCrossEntropy": {}}', "{}", "ab" * 32)
    made = Models(tmp_path).add("model-a", NETWORK, layers_json(SPEC), PARAMS, (None, None, {}), NOON, "pixels", origin)
    assert (made.origin, made.input_column) == (origin, "pixels")
    assert Models(tmp_path).get("model-a") == made
    with safe_open(tmp_path / "model-a" / FILE, framework="numpy") as file:
        metadata = file.metadata()
    assert (metadata["loss"], metadata["input_column"]) == (origin.loss_json, "pixels")


def test_its_parameters_come_back(tmp_path: Path) -> None:
    add(Models(tmp_path))
    np.testing.assert_array_equal(Models(tmp_path).parameters("model-a", NETWORK), PARAMS)
    with pytest.raises(NotFound):
        Models(tmp_path).parameters("nobody", NETWORK)


def test_a_stamp_tells_a_model_from_its_successor(tmp_path: Path) -> None:
    models = Models(tmp_path)
    add(models)
    stamp = models.stamp("model-a")
    assert Models(tmp_path).stamp("model-a") == stamp
    remove_directory(tmp_path / "model-a")
    with pytest.raises(NotFound):
        models.stamp("model-a")
    add(models)
    assert models.stamp("model-a") != stamp
