"""Two Ray nodes, simulated on this machine, each with an object store that is smaller than the data."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster

from service.cluster.local_cluster import LocalTraining
from service.cluster.local_workers import LocalWorkers
from service.cluster.ray_cluster import RayCluster
from service.data.columns import Column
from service.data.datasets import Dataset
from service.jobs.spec import JobSpec
from service.training.optimizers import Sgd
from service.training.session import Order, Trained, Training
from service.training.task import make_task, shuffle_window
from service.training.trainer import Policy
from tests.contract.conftest import PREFIX, left_over, only_one_starts
from tests.contract.tasks import LOSS, NETWORK, SHARDS
from tests.contract.working import MIXED, OBJECTS, SHARED, evaluated, expected, process, total, working
from worker.arrays import Array
from worker.layers import Dense
from worker.losses import MeanSquaredError
from worker.shards import Shards
from worker.task import Data, Task

pytestmark = pytest.mark.system

MIB = 1 << 20
STORE_BYTES = 80 * MIB
ROWS, FEATURES = 26_000, 2_048
"""203 MiB in single precision."""


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayCluster]:
    assert not ray.is_initialized()
    made = Cluster()
    try:
        with only_one_starts():
            for _ in range(2):
                made.add_node(num_cpus=2, object_store_memory=STORE_BYTES, include_dashboard=False)
        with closing(RayCluster(made.address, 1, f"{PREFIX}nodes-")) as joined:
            yield joined
    finally:
        made.shutdown()  # type: ignore[no-untyped-call]
    assert not left_over()


@pytest.fixture(scope="module")
def far_crew(nodes: RayCluster) -> list[Any]:
    """All workers of both nodes, without those that are busy elsewhere."""
    return [nodes.borrow() for _ in range(4)]


@pytest.mark.parametrize("exchange", [SHARED, OBJECTS, MIXED])
def test_two_nodes_give_the_same_bits(far_crew: list[Any], exchange: str) -> None:
    task = Task(NETWORK, LOSS, Shards(SHARDS.rows, 0.25, batch_size=50, shards=8, seed=3))
    with working(far_crew, task, 4, exchange) as workers:
        nodes = {member.node for member in workers._members.values()}
        assert len(nodes) == 2
        for step in range(3):
            blocks = workers.gradients(step)
            assert total(blocks, task) == expected(task, step)
            if exchange == OBJECTS:
                # Each node sends one vector, of neighbouring shards, and not one a worker or shard.
                assert [(block.first, block.width) for block in sorted(blocks, key=lambda b: b.first)] == [
                    (0, 4),
                    (4, 4),
                ]
        assert total(workers.evaluate(), task) == evaluated(task)


def outcome_of(training: Training, look: Callable[[], None] = lambda: None) -> Any:
    """How it ends; meanwhile `look` is called again and again."""
    acknowledged = 0
    while True:
        look()
        news = training.news(acknowledged, 0.2)
        acknowledged = news.posted[-1].number if news.posted else acknowledged
        if news.outcome is not None:
            return news.outcome


def own_bytes(worker: int) -> int:
    """The memory of a process, without what it shares with others."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{worker}/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


def test_data_larger_than_the_store_streams_through_it(nodes: RayCluster, far_crew: list[Any], tmp_path: Path) -> None:
    """From disk, in blocks, of which a worker holds a few; the result is that of the data in memory."""
    random = np.random.default_rng(1)
    inputs: Array = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (ROWS, FEATURES))
    for start in range(0, ROWS, 1000):
        inputs[start : start + 1000] = random.standard_normal((min(1000, ROWS - start), FEATURES), np.float32)
    targets = random.standard_normal(ROWS).astype(np.float32)
    columns = (
        Column("x", "float32", (FEATURES,), -9.0, 9.0, 0),
        Column("y", "float32", (), -9.0, 9.0, 0),
    )
    dataset = Dataset("large", ROWS, columns, inputs.nbytes, "", datetime.now(UTC))
    of = JobSpec(
        dataset="large",
        input_column="x",
        target_column="y",
        validation_fraction=0.1,
        layers=(Dense(1),),
        loss=MeanSquaredError(),
        optimizer=Sgd(),
        learning_rate=0.001,
        epochs=1,
        batch_size=2_000,
        shards=2,
        workers=2,
        seed=1,
        max_workers=2,
    )
    held = nodes.room().held_bytes
    window = shuffle_window(of, dataset, held)
    assert 0 < window * FEATURES * 4 <= held < STORE_BYTES / 4
    spec = replace(of, shuffle_window=window)
    order = Order("large", spec, make_task(spec, dataset, "spec"), tmp_path, Policy())
    crew = [far_crew.pop() for _ in range(2)]
    for actor in crew:
        nodes.give_back(actor, "")
    processes = [process(actor) for actor in crew]
    before = sum(map(own_bytes, processes))
    seen: list[int] = []
    with nodes.train(order, dataset, Data(inputs, targets), 2) as training:
        outcome = outcome_of(training, lambda: seen.append(sum(map(own_bytes, processes))))
    assert isinstance(outcome, Trained)
    assert outcome.epoch.step == 12
    assert max(seen) - before < inputs.nbytes / 2  # of both together
    assert outcome.params.tobytes() == in_memory(order, Data(inputs, targets))


def in_memory(order: Order, data: Data) -> bytes:
    """The same steps, without a cluster."""
    here = replace(order, checkpoints=order.checkpoints / "here")
    outcome = outcome_of(LocalTraining(here, LocalWorkers(order.task, data, 2)))
    assert isinstance(outcome, Trained)
    return outcome.params.tobytes()
