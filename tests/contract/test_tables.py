"""Gradients of tables through every exchange: the bits of the whole, in slots that are small for any table."""

from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from typing import Any, TypeAlias

import numpy as np
import pytest

from service.cluster.local_workers import LocalWorkers
from service.training.optimizers import Adam
from service.training.session import ClosingWorkers
from service.training.update import Update
from tests.contract.tasks import TARGETS
from tests.contract.working import MIXED, OBJECTS, SHARED, bits, evaluated, expected, total, working
from worker.layers import Concatenate, Dense, Embedding, Stack
from worker.losses import SoftmaxCrossEntropy
from worker.network import Network
from worker.scores import sizes
from worker.segment import Layout
from worker.shards import Shards
from worker.task import Data, Task

ROWS, VOCABULARY = len(TARGETS), 1_000
NETWORK = Network((Concatenate((Stack((Embedding(VOCABULARY, 5),)), Stack((Embedding(ROWS, 3),)))), Dense(3)), ())
TASK = Task(NETWORK, SoftmaxCrossEntropy(), Shards(ROWS, 0.25, batch_size=50, shards=7, seed=3))
DATA = Data(np.random.default_rng(8).integers(ROWS // 4, size=ROWS), TARGETS)
"""Every number about four times, so that shards have some in common and some of their own."""

Make: TypeAlias = Callable[[int], AbstractContextManager[ClosingWorkers]]


@pytest.fixture(
    params=["local", *(pytest.param(exchange, marks=pytest.mark.system) for exchange in (SHARED, OBJECTS, MIXED))]
)
def make(request: pytest.FixtureRequest) -> Make:
    """Makes so many workers of each kind."""
    exchange = str(request.param)
    if exchange != "local":
        crew = request.getfixturevalue("crew")
        return lambda count: working(crew, TASK, count, exchange, data=DATA)

    def local(count: int) -> AbstractContextManager[Any]:
        return closing(LocalWorkers(TASK, DATA, count))

    return local


@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_number_of_workers_gives_the_same_bits(make: Make, count: int) -> None:
    with make(count) as workers:
        workers.params[:] = NETWORK.initial(seed=5)
        for step in (0, 1, 4):
            assert total(workers.gradients(step), TASK) == expected(TASK, step, workers.params, DATA)
        assert total(workers.evaluate(), TASK) == evaluated(TASK, workers.params, DATA)


def test_steps_give_the_bits_of_a_single_worker(make: Make) -> None:
    """Parameters and what the optimizer carries, after the trainer's two passes."""
    with make(2) as workers, closing(LocalWorkers(TASK, DATA)) as alone:
        assert trained(workers) == trained(alone)


def trained(workers: ClosingWorkers) -> list[bytes]:
    update = Update(NETWORK.dense, workers.params.dtype, NETWORK.learned, tables=NETWORK.tables)
    workers.params[:] = NETWORK.initial(seed=5)
    carried = {name: np.zeros_like(workers.params) for name in Adam.carries}
    for step in range(4):
        mean = update.average(workers.gradients(step), TASK.shards.shards)
        update.apply(Adam(), workers.params, mean, carried, 0.1, step)
    return [vector.tobytes() for vector in (workers.params, *carried.values())]


def test_a_slot_is_as_large_as_what_a_shard_can_look_up() -> None:
    network = Network((Embedding(100_000, 64),), (16,))
    task = Task(network, SoftmaxCrossEntropy(), Shards(10_000, 0.0, batch_size=64, shards=4, seed=0))
    layout = Layout(network.size, 4, 2, sizes(task.training_scores), sizes(task.scores), tables=task.rooms)
    looked_up = 16 * 16
    assert layout.slot_bytes <= looked_up * (64 * 4 + 8) + 128
    assert layout.size - layout.params_offset <= 4 * network.size + 8 * layout.slot_bytes + 4096


def test_a_total_says_more_than_its_vector() -> None:
    """So that the comparisons above would notice."""
    first, second = (LocalWorkers(TASK, DATA) for _ in range(2))
    for workers, seed in ((first, 5), (second, 6)):
        workers.params[:] = NETWORK.initial(seed)
    some, others = (workers.gradients(0)[0].total for workers in (first, second))
    assert some.tables[0].rows.tolist() == others.tables[0].rows.tolist()
    assert bits(some) != bits(others)
    assert len(bits(some)) > some.vector.nbytes
