"""Models at hand: loaded once, kept by least recent use, never more than fit, never one that is gone."""

import threading
from pathlib import Path

import numpy as np
import pytest

from service.data.classes import FittedClasses
from service.data.preparation import FittedPreparation
from service.errors import Aborted, InvalidArgument, NotFound, ResourceExhausted
from service.files import remove_directory
from service.models.loaded import LoadedModels
from service.models.registry import Models, Origin
from service.wire.job import layers_json
from service.wire.network import model_json, model_network
from tests.unit.service.examples import FEATURES, NOON, SPEC, task
from worker.layers import Dense

NETWORK = task().network
BYTES = NETWORK.size * 4
ROWS = np.random.default_rng(2).standard_normal((7, FEATURES)).astype(np.float32)


def made(root: Path, *ids: str) -> Models:
    models = Models(root)
    for seed, model_id in enumerate(ids):
        models.add(model_id, NETWORK, layers_json(SPEC), NETWORK.initial(seed), (None, None, {}), NOON)
    return models


def loading(models: Models, room: int) -> LoadedModels:
    return LoadedModels(models, lambda model: model_network(model.layers_json, model.input_shape), room * BYTES)


def test_a_model_is_read_once(tmp_path: Path) -> None:
    loaded = loading(made(tmp_path, "a"), 1)
    assert loaded.at_hand("a") is None
    first = loaded.load("a")
    assert loaded.load("a") is first is loaded.at_hand("a")
    assert (loaded.loads, loaded.count, loaded.bytes) == (1, 1, BYTES)
    np.testing.assert_array_equal(first.params, NETWORK.initial(0))


def test_the_one_not_used_for_longest_goes(tmp_path: Path) -> None:
    loaded = loading(made(tmp_path, "a", "b", "c"), 2)
    for model_id in ("a", "b", "a", "c"):
        loaded.load(model_id)
        assert loaded.bytes <= 2 * BYTES
    assert [loaded.at_hand(each) is not None for each in "abc"] == [True, False, True]


def test_one_larger_than_the_memory_is_refused_and_pushes_nobody_out(tmp_path: Path) -> None:
    models = made(tmp_path, "a")
    wide = NETWORK.layers * 2
    large = type(NETWORK)((*wide[:1], *NETWORK.layers[1:2], *[NETWORK.layers[0]] * 9), NETWORK.input_shape)
    models.add("large", large, layers_json(SPEC), large.initial(1), (None, None, {}), NOON)
    loaded = loading(models, 1)
    loaded.load("a")
    with pytest.raises(ResourceExhausted, match="--model-cache-bytes"):
        loaded.load("large")
    assert loaded.at_hand("a") is not None


def test_one_that_was_deleted_is_not_found_and_takes_no_memory(tmp_path: Path) -> None:
    loaded = loading(made(tmp_path, "a"), 2)
    loaded.load("a")
    remove_directory(tmp_path / "a")
    for ask in (loaded.at_hand, loaded.load):
        with pytest.raises(NotFound):
            ask("a")
    assert loaded.bytes == 0


def test_another_under_the_same_id_is_another(tmp_path: Path) -> None:
    models = made(tmp_path, "a")
    loaded = loading(models, 2)
    loaded.load("a")
    remove_directory(tmp_path / "a")
    models.add("a", NETWORK, layers_json(SPEC), NETWORK.initial(9), (None, None, {}), NOON)
    np.testing.assert_array_equal(loaded.load("a").params, NETWORK.initial(9))
    assert loaded.bytes == BYTES


def test_a_batch_of_any_size_is_its_rows(tmp_path: Path) -> None:
    model = loading(made(tmp_path, "a"), 1).load("a")
    rows = np.tile(ROWS, (400, 1))
    found = model.predict(rows, threading.Event())
    assert found.dtype == np.float32
    expected, *_ = NETWORK.forward(model.params, ROWS)
    np.testing.assert_allclose(found, np.tile(expected, (400, 1)), rtol=1e-5, atol=1e-6)


def test_numbers_that_are_none_are_refused_in_any_block(tmp_path: Path) -> None:
    model = loading(made(tmp_path, "a"), 1).load("a")
    rows = np.tile(ROWS, (400, 1)).astype(float)
    for bad in (np.nan, np.inf, 1e300):
        rows[-1, -1] = bad
        with pytest.raises(InvalidArgument, match="NaN, infinite, or beyond float32"):
            model.predict(rows, threading.Event())


def test_nothing_is_computed_for_one_who_has_gone(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Aborted):
        loading(made(tmp_path, "a"), 1).load("a").predict(ROWS, stop)


def test_one_of_double_precision_computes_so(tmp_path: Path) -> None:
    models = Models(tmp_path)
    params = NETWORK.initial(3, np.float64)
    models.add("a", NETWORK, layers_json(SPEC), params, (None, None, {}), NOON)
    loaded = loading(models, 2)
    model = loaded.load("a")
    assert loaded.bytes == 2 * BYTES
    rows = ROWS.astype(np.float64) / 3
    np.testing.assert_array_equal(model.predict(rows, threading.Event()), NETWORK.forward(params, rows)[0])
    with pytest.raises(InvalidArgument, match="beyond float64"):
        model.predict(np.full_like(rows, np.inf), threading.Event())
    with pytest.raises(ResourceExhausted):
        loading(models, 1).load("a")


@pytest.mark.parametrize(
    ("classes", "units", "outputs", "names"),
    [
        (("a", "b", "c"), 3, [[0, 2, 1], [5, 2, 1]], ["b", "a"]),
        (("no", "yes"), 1, [[-0.5], [0.5]], ["no", "yes"]),
        (("no", "yes"), 2, [[-0.5, 0], [-0.5, -1]], ["yes", "no"]),
        (("a", "b", "c"), 1, [], None),
        (("a", "b"), 3, [], None),
        ((), 3, [], None),
    ],
)
def test_outputs_stand_for_classes_that_have_names(
    tmp_path: Path, classes: tuple[str, ...], units: int, outputs: list[list[float]], names: list[str] | None
) -> None:
    network = type(NETWORK)((Dense(units),), (2,))
    models, text = Models(tmp_path), model_json(network.layers, None, ())
    fitted = FittedPreparation((), FittedClasses("y", classes)).to_json() if classes else ""
    origin = Origin("", "", "", fitted)
    models.add("a", network, text, network.initial(1), (None, None, {}), NOON, origin=origin)
    found = loading(models, 1).load("a")
    assert found.names_classes == (names is not None)
    if names is not None:
        assert found.named_classes(np.array(outputs)).tolist() == names
