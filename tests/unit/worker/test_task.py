"""What a worker is asked, with data as it is stored."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from worker.arrays import Array
from worker.gradient import Batch, evaluate, gradient, tree_sum
from worker.layers import Dense, ReLU
from worker.losses import Loss, MeanSquaredError, SoftmaxCrossEntropy
from worker.network import Network
from worker.shards import Shards
from worker.task import ROWS_AT_ONCE, Data, Task

ROWS, FEATURES = 40, 5
RNG = np.random.default_rng(10)
PIXELS = RNG.integers(0, 256, (ROWS, FEATURES)).astype(np.uint8)
CLASSES = RNG.integers(3, size=ROWS)


def task(loss: Loss, outputs: int, *, rows: int = ROWS, shards: int = 3, validation_fraction: float = 0.25) -> Task:
    network = Network((Dense(4), ReLU(), Dense(outputs)), (FEATURES,))
    return Task(network, loss, Shards(rows, validation_fraction, batch_size=16, shards=shards, seed=11))


CLASSIFIER = task(SoftmaxCrossEntropy(), 3)
REGRESSION = task(MeanSquaredError(), 1)
PARAMS = CLASSIFIER.network.initial(seed=12)


def assert_same(of: Task, one: Data, other: Data) -> None:
    params = of.network.initial(seed=12)
    for shard in range(of.shards.shards):
        a, b = (of.gradient(data, params, step=1, shard=shard) for data in (one, other))
        assert a.vector.dtype == np.float32
        np.testing.assert_array_equal(a.vector, b.vector)
        assert a.sums == b.sums
        assert of.evaluate(one, params, shard) == of.evaluate(other, params, shard)


def test_gradient_is_that_of_the_shards_rows() -> None:
    rows = CLASSIFIER.shards.training(1, 2)
    actual = CLASSIFIER.gradient(Data(PIXELS, CLASSES), PARAMS, step=1, shard=2)
    expected = gradient(
        CLASSIFIER.network, CLASSIFIER.loss, PARAMS, Batch(PIXELS[rows].astype(np.float32), CLASSES[rows])
    )
    np.testing.assert_array_equal(actual.vector, expected.vector)
    assert actual.sums == expected.sums


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.uint64, np.float16, np.float64])
def test_inputs_may_be_stored_as_any_numbers(dtype: type) -> None:
    assert_same(CLASSIFIER, Data(PIXELS.astype(np.float32), CLASSES), Data(PIXELS.astype(dtype), CLASSES))


def test_inputs_may_be_stored_as_truth_values() -> None:
    ticked = PIXELS > 127
    assert_same(CLASSIFIER, Data(ticked.astype(np.float32), CLASSES), Data(ticked, CLASSES))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint64])
def test_classes_may_be_any_integers(dtype: type) -> None:
    assert_same(CLASSIFIER, Data(PIXELS, CLASSES), Data(PIXELS, CLASSES.astype(dtype)))


@pytest.mark.parametrize("targets", [CLASSES.astype(np.uint8), CLASSES.astype(np.float64), CLASSES[:, np.newaxis]])
def test_regression_takes_integers_and_columns(targets: Array) -> None:
    assert_same(REGRESSION, Data(PIXELS, CLASSES.astype(np.float32)), Data(PIXELS, targets))


def test_a_read_only_dataset_is_enough() -> None:
    """Ray hands out views of its object store that refuse to be written."""
    inputs, targets = PIXELS.copy(), CLASSES.copy()
    inputs.flags.writeable = targets.flags.writeable = False
    assert_same(CLASSIFIER, Data(PIXELS, CLASSES), Data(inputs, targets))


def test_a_task_travels() -> None:
    """Pickled, as to a worker, it answers with the same bits, also when it has answered before."""
    data = Data(PIXELS, CLASSES)
    expected = CLASSIFIER.gradient(data, PARAMS, step=0, shard=0)
    there: Task = pickle.loads(pickle.dumps(CLASSIFIER))  # noqa: S301 - our own bytes
    assert there == CLASSIFIER
    assert there.gradient(data, PARAMS, step=0, shard=0).vector.tobytes() == expected.vector.tobytes()


def test_held_out_rows_are_evaluated_in_parts_that_add_up() -> None:
    """One row more a shard than goes through the network at once."""
    rows = 2500
    x = RNG.standard_normal((rows, FEATURES)).astype(np.float32)
    y = RNG.integers(3, size=rows)
    of = task(SoftmaxCrossEntropy(), 3, rows=rows, shards=2, validation_fraction=0.82)
    held_out = np.concatenate([of.shards.validation(shard) for shard in range(2)])
    whole = evaluate(of.network, of.loss, PARAMS, Batch(x[held_out], y[held_out]))
    parts = tree_sum([of.evaluate(Data(x, y), PARAMS, shard) for shard in range(2)])
    assert parts.count == whole.count == 2 * (ROWS_AT_ONCE + 1)
    assert parts == replace(whole, loss=parts.loss)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)


def test_a_dataset_of_one_row() -> None:
    """It is trained on, nothing is held out, and all shards but one are empty."""
    of = task(SoftmaxCrossEntropy(), 3, rows=1, validation_fraction=0.9)
    data = Data(PIXELS[:1], CLASSES[:1])
    total = tree_sum([of.gradient(data, PARAMS, step=5, shard=shard) for shard in range(3)])
    assert total.sums.count == 1
    assert total.vector.any()
    held_out = tree_sum([of.evaluate(data, PARAMS, shard) for shard in range(3)])
    assert (held_out.loss, held_out.count) == (0, 0)


@pytest.mark.parametrize("value", [1e300, np.inf, np.nan], ids=str)
def test_data_beyond_single_precision_shows_in_the_loss_and_makes_no_warning(value: float) -> None:
    numbers = np.full((ROWS, FEATURES), value)
    for of, data in ((CLASSIFIER, Data(numbers, CLASSES)), (REGRESSION, Data(PIXELS, numbers[:, 0]))):
        params = of.network.initial(seed=12)
        assert not np.isfinite(of.gradient(data, params, step=0, shard=0).sums.loss)
        assert not np.isfinite(of.evaluate(data, params, shard=0).loss)


def test_rows_that_were_foreseen_give_the_same_and_are_kept_no_longer_than_until_they_are_used() -> None:
    data, other = Data(PIXELS, CLASSES), Data(PIXELS, CLASSES)
    CLASSIFIER.foresee(data, PARAMS.dtype, 1, [0, 2])
    actual = [CLASSIFIER.gradient(data, PARAMS, step=1, shard=shard) for shard in (0, 1)]
    expected = [CLASSIFIER.gradient(other, PARAMS, step=1, shard=shard) for shard in (0, 1)]
    assert [g.vector.tobytes() for g in actual] == [g.vector.tobytes() for g in expected]
    assert list(data.ahead) == [(1, 2)]
    CLASSIFIER.foresee(data, PARAMS.dtype, 2, [1])
    assert list(data.ahead) == [(2, 1)]
