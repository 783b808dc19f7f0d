"""The trainer's two passes over tables: only the rows that were looked up, and as if there were no other."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.training.optimizers import Adam, Momentum, Optimizer, Sgd
from service.training.state import Diverged
from service.training.trainer import Stopped
from service.training.update import SHARED_FROM, SLICE, Update, check_finite
from tests.unit.service.examples import FEATURES, ROWS, spec, task
from tests.unit.service.training_run import Run, undisturbed
from tests.unit.service.unreliable import UnreliableWorkers
from worker.arrays import Array
from worker.blocks import Block, merge
from worker.gradient import Gradient, Sums, tree_sum
from worker.layers import Concatenate, Dense, Dropout, Embedding, Layer, Residual, Stack
from worker.losses import MeanSquaredError
from worker.network import Network, Slot
from worker.tables import TableGradient
from worker.task import Data

VOCABULARY, SIZE = 50, 300
WORDS = Concatenate((Stack((Embedding(VOCABULARY, SIZE),)), Stack((Embedding(9, 2),))))
NETWORK = Network((WORDS, Dense(2)), ())


def update_of(network: Network = NETWORK) -> Update:
    return Update(network.dense, np.dtype(np.float32), network.learned, tables=network.tables)


def random_gradient(network: Network, shard: int, lookups: int = 12) -> Gradient:
    """Of very different sizes, so that another order of additions would show."""
    random = np.random.default_rng(shard)
    scale = np.float32(10.0 ** random.integers(-4, 4))
    tables = []
    for slot in (table.slot for table in network.tables):
        rows = np.unique(random.integers(slot.parameter.shape[0], size=lookups))
        tables.append(
            TableGradient(rows, random.standard_normal((len(rows), slot.parameter.shape[1])).astype(np.float32))
        )
    vector = random.standard_normal(network.dense).astype(np.float32) * scale
    return Gradient(vector, Sums(1.0, {}, shard + 1, shard + 1), tuple(tables))


def block(shard: int, network: Network = NETWORK) -> Block:
    return Block(shard, 1, random_gradient(network, shard))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=9))
def test_however_the_sum_is_cut_the_mean_has_the_same_bits(owners: list[int]) -> None:
    shards = len(owners)
    blocks: list[Block] = []
    for owner in sorted(set(owners), reverse=True):
        blocks += merge([block(shard) for shard in range(shards) if owners[shard] == owner], shards)
    mean = update_of().average(blocks, shards)
    whole = tree_sum([block(shard).total for shard in range(shards)])
    share = np.float32(1 / whole.sums.count)
    for found, expected in zip(mean.tables, whole.tables, strict=True):
        assert found.rows.tobytes() == expected.rows.tobytes()
        assert found.values.tobytes() == (expected.values * share).tobytes()
    squares = [
        float(np.sum(np.square(part, dtype=np.float64))) for part in (mean.vector, *(t.values for t in mean.tables))
    ]
    assert mean.squared_norm == pytest.approx(math.fsum(squares), rel=1e-5)


@pytest.mark.parametrize("optimizer", [Sgd(), Momentum(), Adam()], ids=str)
def test_rows_that_were_looked_up_move_as_ever_and_the_others_not_at_all(optimizer: Optimizer) -> None:
    """Held against the rule itself, applied to these rows of whole vectors alone."""
    update = update_of()
    params = NETWORK.initial(seed=2)
    carried = {name: np.zeros_like(params) for name in optimizer.carries}
    expected, expected_carried = params.copy(), {name: vector.copy() for name, vector in carried.items()}
    for step in range(4):
        mean = update.average([Block(0, 1, random_gradient(NETWORK, step))], 1)
        touched = np.zeros(NETWORK.size, bool)
        touched[: NETWORK.dense] = True
        gradient = np.zeros_like(params)
        gradient[: NETWORK.dense] = mean.vector
        for its, table in zip(NETWORK.tables, mean.tables, strict=True):
            its.slot.view(touched)[table.rows] = True
            its.slot.view(gradient)[table.rows] = table.values
        vectors = {name: vector[touched] for name, vector in expected_carried.items()}
        moved = expected[touched]
        optimizer.update(moved, gradient[touched], vectors, 0.1, step, np.empty_like(moved))
        expected[touched] = moved
        for name, vector in vectors.items():
            expected_carried[name][touched] = vector
        assert not touched.all()

        update.apply(optimizer, params, mean, carried, 0.1, step)

        np.testing.assert_array_equal(params, expected)
        for name, vector in carried.items():
            np.testing.assert_array_equal(vector, expected_carried[name])


@pytest.mark.parametrize("dense", [1, SHARED_FROM // 64], ids=["one thread", "two threads"])
def test_slices_and_threads_do_not_show(dense: int) -> None:
    """Against each row by itself; there are more rows than a slice has room for."""
    network = Network((Embedding(2_000, 64), Dense(dense)), ())
    update = update_of(network)
    terms = [random_gradient(network, shard, lookups=3_000) for shard in range(2)]
    assert all(term.tables[0].values.size > SLICE for term in terms)
    mean = update.average([Block(shard, 1, term.writable()) for shard, term in enumerate(terms)], 2)
    slot, (table,) = network.tables[0].slot, mean.tables
    params = network.initial(seed=0)
    carried = {name: np.zeros_like(params) for name in Adam.carries}
    expected = slot.view(params).copy()
    rows, values = table.rows.copy(), table.values.copy()
    update.apply(Adam(), params, mean, carried, 0.1, 0)
    for row, value in zip(rows, values, strict=True):
        one = {name: np.zeros(64, np.float32) for name in Adam.carries}
        Adam().update(expected[row], value, one, 0.1, 0, np.empty(64, np.float32))
    np.testing.assert_array_equal(slot.view(params), expected)


def table_with(value: float) -> tuple[Slot, Gradient]:
    made = random_gradient(NETWORK, 3)
    broken = made.tables[1].values.copy()
    broken[-1, 0] = value
    tables = (made.tables[0], TableGradient(made.tables[1].rows, broken))
    return NETWORK.tables[1].slot, Gradient(made.vector, made.sums, tables)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_broken_gradient_of_a_table_names_it(value: float) -> None:
    slot, broken = table_with(value)
    assert slot.name == "layers.0.1.0.weight"
    with pytest.raises(Diverged, match=rf"the gradient of {slot.name} is NaN or infinite in step 5"):
        check_finite(update_of().average([Block(0, 1, broken)], 1), NETWORK, step=4)


def test_a_large_one_passes() -> None:
    """Where its square isn't finite."""
    _, large = table_with(3e38)
    mean = update_of().average([Block(0, 1, large)], 1)
    check_finite(mean, NETWORK, step=4)
    assert mean.squared_norm == np.inf


def test_an_overflow_makes_no_warning() -> None:
    largest = [table_with(float(np.finfo(np.float32).max))[1] for _ in range(2)]
    mean = update_of().average([Block(shard, 1, term) for shard, term in enumerate(largest)], 2)
    assert mean.squared_norm == np.inf


def test_what_workers_brought_is_left_as_it_is() -> None:
    """It may lie in the object store, where it can only be read."""
    given = block(0)
    for table in given.total.tables:
        table.values.flags.writeable = table.rows.flags.writeable = False
    params: Array = NETWORK.initial(seed=2)
    update = update_of()
    update.apply(Sgd(), params, update.average([given], 1), {}, 0.1, 0)


MIXED: tuple[Layer, ...] = (Residual((Embedding(40, 3),), (Embedding(30, 3), Dropout(0.3))),)
WORDS_ALONE: tuple[Layer, ...] = (Embedding(30, 3),)
_random = np.random.default_rng(7)
TOKENS = Data(_random.integers(30, size=(ROWS, FEATURES)), _random.standard_normal((ROWS, FEATURES, 3)))


@pytest.mark.parametrize("layers", [WORDS_ALONE, MIXED], ids=["a table alone", "two tables"])
@pytest.mark.parametrize("optimizer", [Sgd(), Adam()], ids=str)
def test_a_job_whatever_happens_to_it_gives_the_same_bits(
    layers: tuple[Layer, ...], optimizer: Optimizer, tmp_path: Path
) -> None:
    """Its workers lost, and its trainer stopped and gone on from a checkpoint."""
    of = spec(layers=layers, loss=MeanSquaredError(), optimizer=optimizer, learning_rate=0.5, workers=3, max_workers=3)
    bits, epochs = undisturbed(of, TOKENS)
    assert epochs[-1].training_loss < epochs[0].training_loss
    workers = UnreliableWorkers(task(of), TOKENS, 3, {1: [0], 4: [1, 2], 7: [0, 1, 2]})
    assert Run(tmp_path / "lost", of=of, data=TOKENS).train(workers) == bits
    with pytest.raises(Stopped):
        Run(tmp_path / "stopped", of=of, data=TOKENS, stop_after=5).train()
    assert Run(tmp_path / "stopped", of=of, data=TOKENS).train() == bits
