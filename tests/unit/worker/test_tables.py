"""Gradients of tables: they say what a dense gradient would, and add up to the same bits however the work is cut."""

import mmap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.worker.central_differences import assert_is_gradient
from tests.unit.worker.whole_tables import whole_table, whole_vector
from worker.arrays import Array, Rows
from worker.blocks import Block, merge
from worker.errors import InvalidValue
from worker.gradient import Batch, Gradient, Sums, gradient, tree_sum
from worker.layers import Concatenate, Dense, Embedding, Flatten, Layer, Residual, Stack
from worker.losses import MeanSquaredError, SoftmaxCrossEntropy
from worker.network import Network
from worker.tables import TableGradient, TableRoom, gathered, spread, summed, write_rows

VOCABULARY, SIZE, TIME = 7, 3, 4
RESIDUAL = Residual(
    (Embedding(VOCABULARY, SIZE),), (Concatenate((Stack((Embedding(9, 1),)), Stack((Embedding(8, 2),)))),)
)


def values_of(rows: Rows, seed: int) -> Array:
    """Of very different sizes, so that another order of additions would show."""
    random = np.random.default_rng(seed)
    drawn = random.standard_normal((len(rows), SIZE)) * 10.0 ** random.integers(-6, 6, (len(rows), 1))
    return drawn.astype(np.float32)


@given(st.lists(st.integers(0, VOCABULARY - 1), max_size=30), st.integers(0, 9))
def test_a_row_gets_the_sum_over_all_its_places(at: list[int], seed: int) -> None:
    rows = np.array(at, np.intp)
    values = values_of(rows, seed).astype(np.float64)
    dense = np.zeros((VOCABULARY, SIZE))
    np.add.at(dense, rows, values)
    found = summed(rows, values)
    np.testing.assert_array_equal(found.rows, np.unique(rows))
    np.testing.assert_allclose(
        whole_table(found, dense.shape), dense, rtol=1e-12, atol=1e-12 * np.abs(values).max(initial=0)
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(at=st.lists(st.integers(0, VOCABULARY - 1), unique=True))
def test_rows_that_are_written_are_there_and_no_others(dtype: str, at: list[int]) -> None:
    rows = np.array(at, np.intp)
    # As tables lie in the parameters: somewhere in a longer vector.
    vector = np.arange(5 + VOCABULARY * SIZE, dtype=dtype)
    table, expected = vector[5:].reshape(VOCABULARY, SIZE), vector[5:].reshape(VOCABULARY, SIZE).copy()
    values = values_of(rows, 3).astype(dtype)
    expected[rows] = values
    write_rows(table, rows, values)
    assert table.tobytes() == expected.tobytes()
    assert vector[:5].tolist() == [0, 1, 2, 3, 4]


def test_places_of_a_row_are_added_pairwise_in_their_order() -> None:
    """((0 + 1) + (2 + 3)) + 4, whatever rows stand between."""
    rows = np.array([3, 5, 3, 3, 5, 3, 3])
    values = values_of(rows, 1)
    a, b, c, d, e = values[rows == 3]
    found = summed(rows, values.copy())
    assert found.values[0].tobytes() == (((a + b) + (c + d)) + e).tobytes()


NUMBERS = st.lists(st.sampled_from([0, 1, 7, 65_535, 65_536, 65_537, 131_071, 131_072, 9_999_999]), max_size=12)


@given(NUMBERS, NUMBERS)
def test_of_large_tables_too_each_row_is_there_once(one: list[int], other: list[int]) -> None:
    both = np.array([*one, *other], np.intp)
    values = values_of(both, 3)
    parts = [summed(both[part], values[part]) for part in (slice(len(one)), slice(len(one), None))]
    found = parts[0] + parts[1]
    assert [part.rows.tolist() for part in parts] == [sorted(set(one)), sorted(set(other))]
    assert sorted(found.rows.tolist()) == sorted({*one, *other})
    for row, value in zip(found.rows, found.values, strict=True):
        np.testing.assert_allclose(value, values[both == row].astype(np.float64).sum(axis=0), rtol=1e-5, atol=1e-6)
    of_both = set(one) & set(other)
    for part in parts:
        for row, value in zip(part.rows, part.values, strict=True):
            if row not in of_both:  # nothing is added to it
                assert found.values[found.rows == row].tobytes() == value.tobytes()


def test_what_is_summed_is_left_as_it_is() -> None:
    rows, values = np.array([1, 1, 0]), values_of(np.arange(3), 2)
    before = values.copy()
    summed(rows, values)
    np.testing.assert_array_equal(values, before)


def terms(shards: int, seed: int) -> list[Gradient]:
    random = np.random.default_rng(seed)
    made = []
    for shard in range(shards):
        tables = []
        for vocabulary in (VOCABULARY, 40):
            rows = np.sort(random.permutation(vocabulary)[: random.integers(0, 6)])
            tables.append(TableGradient(rows, values_of(rows, seed + shard)))
        made.append(Gradient(values_of(np.arange(2), shard), Sums(0.5, {}, shard, shard), tuple(tables)))
    return made


def bits(gradient: Gradient) -> tuple[bytes, ...]:
    tables = [part.tobytes() for table in gradient.tables for part in (table.rows, table.values)]
    return (gradient.vector.tobytes(), *tables)


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_wherever_the_tree_is_cut_the_bits_are_the_same(data: st.DataObject) -> None:
    """By workers of one, two or three nodes, each of which sends what it added through places in shared memory."""
    shards = data.draw(st.integers(1, 12))
    seed = data.draw(st.integers(0, 20))
    workers = data.draw(st.lists(st.integers(0, 2), min_size=shards, max_size=shards))
    rooms = [TableRoom(VOCABULARY, SIZE, min(VOCABULARY, 6)), TableRoom(40, SIZE, 6)]
    received: list[Block] = []
    for worker in range(3):
        own = [
            Block(shard, 1, term.writable())
            for shard, term in enumerate(terms(shards, seed))
            if workers[shard] == worker
        ]
        for block in merge(own, shards):
            width = min(block.width, shards - block.first)
            tables = tuple(sent(table, room, width) for table, room in zip(block.total.tables, rooms, strict=True))
            received.append(Block(block.first, block.width, Gradient(block.total.vector, block.total.sums, tables)))
    (block,) = merge(received, shards)
    assert bits(block.total) == bits(tree_sum(terms(shards, seed)))


def sent(table: TableGradient, room: TableRoom, slots: int) -> TableGradient:
    memory = mmap.mmap(-1, slots * room.bytes("float32"))
    places = [room.views(memory, slot * room.bytes("float32"), "float32") for slot in range(slots)]
    for rows, values in places:
        rows[:], values[:] = 99, np.nan  # of a step before
        rows[0] = room.capacity
    spread(table, places)
    return gathered(places)


def test_more_rows_than_there_is_room_for_are_a_mistake_and_not_lost() -> None:
    rows = np.arange(7)
    with pytest.raises(AssertionError, match="more rows of a table"):
        sent(TableGradient(rows, values_of(rows, 0)), TableRoom(40, SIZE, 3), 2)


def networks() -> list[tuple[str, Network]]:
    towers: tuple[Layer, ...] = (Embedding(VOCABULARY, SIZE), Dense(4), Dense(2))
    return [("one", Network(towers, ())), ("nested", Network((RESIDUAL,), (TIME,)))]


@pytest.mark.parametrize("network", [network for _, network in networks()], ids=[name for name, _ in networks()])
def test_the_gradient_of_a_network_by_central_differences(network: Network) -> None:
    random = np.random.default_rng(4)
    params = random.standard_normal(network.size)
    x = random.integers(VOCABULARY, size=(5, *network.input_shape)).astype(np.float64)
    batch = Batch(x, random.standard_normal((5, *network.output_shape)))
    loss = MeanSquaredError()
    at = gradient(network, loss, params, batch)
    assert len(at.vector) == network.dense
    assert_is_gradient(whole_vector(network, at), lambda p: gradient(network, loss, p, batch).sums.loss, params)


def test_it_is_the_product_with_one_hot_vectors() -> None:
    random = np.random.default_rng(6)
    sparse = Network((Embedding(VOCABULARY, SIZE), Dense(2)), ())
    dense = Network((Dense(SIZE), Dense(2)), (VOCABULARY,))
    table, weight, bias = (random.standard_normal(shape) for shape in ((VOCABULARY, SIZE), (SIZE, 2), 2))
    tokens, targets = random.integers(VOCABULARY, size=20), random.integers(2, size=20)
    loss = SoftmaxCrossEntropy()
    params = np.concatenate([weight.reshape(-1), bias, table.reshape(-1)])
    of_dense = np.concatenate([table.reshape(-1), np.zeros(SIZE), weight.reshape(-1), bias])
    found = gradient(sparse, loss, params, Batch(tokens.astype(float), targets))
    expected = gradient(dense, loss, of_dense, Batch(np.eye(VOCABULARY)[tokens], targets))
    assert found.sums.loss == pytest.approx(expected.sums.loss, rel=1e-12)
    of_table = dense.slots[0].view(expected.vector)
    np.testing.assert_allclose(whole_table(found.tables[0], table.shape), of_table, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.vector, expected.vector[-len(found.vector) :], rtol=1e-9, atol=1e-12)


def test_padded_places_teach_nothing() -> None:
    """They are looked up, but what comes of them doesn't reach the table, even where it counts in the loss."""
    layers = (Embedding(VOCABULARY, SIZE), Flatten())
    padded, plain = Network(layers, (TIME,), padding=0.0), Network(layers, (TIME,))
    params = padded.initial(seed=1)
    x = np.array([[3, 1, 0, 0], [2, 0, 0, 0]], np.float32)
    batch = Batch(x, np.ones((2, TIME * SIZE), np.float32))
    found, every = (gradient(network, MeanSquaredError(), params, batch) for network in (padded, plain))
    assert found.sums == every.sums
    assert found.tables[0].rows.tolist() == [1, 2, 3]
    assert every.tables[0].rows.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(found.tables[0].values, every.tables[0].values[1:])


def test_tables_lie_behind_everything_else() -> None:
    network = Network((Embedding(5, 2), Dense(3)), ())
    assert [slot.name for slot in network.slots] == ["layers.1.weight", "layers.1.bias", "layers.0.weight"]
    assert (network.learned, network.dense, network.size) == (9, 9, 19)


def test_a_shard_has_room_for_what_it_can_look_up_and_no_more() -> None:
    network = Network((Embedding(100_000, 64),), (8,))
    assert network.rooms(16) == (TableRoom(100_000, 64, 16 * 8),)
    assert network.rooms(1_000_000) == (TableRoom(100_000, 64, 100_000),)


@pytest.mark.parametrize("token", [-1, VOCABULARY, np.nan, np.inf, -np.inf])
def test_a_number_beyond_the_table_is_refused(token: float) -> None:
    network = Network((Embedding(VOCABULARY, SIZE),), (2,))
    with pytest.raises(IndexError, match=f"the embedding is for 0 to {VOCABULARY - 1}"):
        network.forward(network.initial(seed=0), np.array([[0, token]], np.float32))


@pytest.mark.parametrize(
    ("vocabulary", "size", "told"),
    [
        (0, 3, "vocabulary: is 0; must be 1 to 10,000,000"),
        (10_000_001, 3, "vocabulary: is 10000001; must be"),
        (3, 0, "size: is 0; must be 1 to 16,384"),
        (3, 16_385, "size: is 16385; must be"),
    ],
)
def test_sizes_are_bounded(vocabulary: int, size: int, told: str) -> None:
    with pytest.raises(InvalidValue, match=told):
        Embedding(vocabulary, size)


@pytest.mark.parametrize(
    ("shape", "told"), [((0,), "at least one place in time"), ((3, 2), r"shape \(time,\) or \(\), of integers")]
)
def test_an_embedding_says_what_would_fit(shape: tuple[int, ...], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Embedding(3, 2).output_shape(shape)
