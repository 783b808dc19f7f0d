"""What a step costs with a table of words, a small one and a large one in turns: it should not depend on the table.

A process of its own, since Ray is started once a process:

    python -m benchmarks.table_cost
    python -m benchmarks.table_cost '{"batch": 512, "rounds": 10}'
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from threadpoolctl import threadpool_limits

from benchmarks.exchange_cost import START_SECONDS, nodes
from service.cluster.ray_workers import Patience, RayWorkers
from service.training.optimizers import Adam
from service.training.update import Update
from worker import actor
from worker.actor import BlockRefs
from worker.arrays import Array
from worker.layers import Concatenate, Dense, Embedding, Stack
from worker.losses import SoftmaxCrossEntropy
from worker.network import Network
from worker.shards import Shards
from worker.task import Task

ROWS, SIZE, CLASSES = 20_000, 64, 8


@dataclass(frozen=True)
class Setting:
    """What is measured."""

    small: int = 1_000
    large: int = 100_000
    words: int = 900
    """How many words the data has, in both: a step then looks up the same rows, whatever the table. 0 for all."""
    batch: int = 256
    steps: int = 100
    rounds: int = 6


class Training:
    """A job under way, without a service."""

    def __init__(self, workers: RayWorkers, task: Task) -> None:
        self._workers = workers
        self._task = task
        network = task.network
        workers.params[:] = network.initial(seed=0)
        self._update = Update(network.dense, workers.params.dtype, network.learned, tables=network.tables)
        self._carried = {name: np.zeros_like(workers.params) for name in Adam.carries}
        self._step = 0

    def step(self) -> tuple[float, float]:
        """Takes a step. Returns the seconds of gathering, and of all of it."""
        began = time.perf_counter()
        blocks = self._workers.gradients(self._step)
        gathered = time.perf_counter()
        mean = self._update.average(blocks, self._task.shards.shards)
        self._update.apply(Adam(), self._workers.params, mean, self._carried, 0.001, self._step)
        self._step += 1
        return gathered - began, time.perf_counter() - began


def main(setting: Setting) -> None:
    """Measures, and prints medians in milliseconds and the ratio."""
    threadpool_limits(1)
    random = np.random.default_rng(0)
    targets = random.integers(CLASSES, size=ROWS)
    seconds: dict[int, list[tuple[float, float]]] = {setting.small: [], setting.large: []}
    tokens = {vocabulary: random.integers(setting.words or vocabulary, size=ROWS) for vocabulary in seconds}
    with nodes(workers=4), ExitStack() as stack:
        trainings = {
            vocabulary: stack.enter_context(_training(vocabulary, setting, tokens[vocabulary], targets))
            for vocabulary in seconds
        }
        for number in range(setting.rounds + 1):
            for vocabulary, training in trainings.items():
                taken = [training.step() for _ in range(setting.steps)]
                seconds[vocabulary] += taken if number else []
    medians = {vocabulary: np.median(taken, axis=0) * 1e3 for vocabulary, taken in seconds.items()}
    for vocabulary, (gather, whole) in medians.items():
        print(f"{vocabulary:,} x {SIZE}: {whole:.2f} ms a step, of which {gather:.2f} gathering")
    print(f"ratio {medians[setting.large][1] / medians[setting.small][1]:.2f}")


@contextmanager
def _training(vocabulary: int, setting: Setting, tokens: Array, targets: Array) -> Iterator[Training]:
    # Two towers on one column of words: an embedding, and what is made of it.
    towers = Concatenate((Stack((Embedding(vocabulary, SIZE), Dense(SIZE))), Stack((Embedding(vocabulary, SIZE),))))
    network = Network((towers, Dense(CLASSES)), ())
    task = Task(network, SoftmaxCrossEntropy(), Shards(ROWS, 0.0, setting.batch, 2, 0))
    columns = tuple(BlockRefs((ray.put(column),), ROWS, 1 << 30) for column in (tokens, targets))
    workers = RayWorkers(task, columns, (2, 2), f"chainrule-bench-{os.getpid()}-{vocabulary}-", Patience())
    try:
        worker: Any = actor.Worker
        workers.lend({number: worker.options(**actor.OPTIONS).remote() for number in range(2)})
        if not workers.wait(START_SECONDS):
            raise SystemExit("the workers did not start")
        yield Training(workers, task)
    finally:
        workers.close()


if __name__ == "__main__":
    main(Setting(**json.loads(sys.argv[1])) if len(sys.argv) > 1 else Setting())
