"""The same job over plain Ray calls: parameters put, every actor called, gradients got, once a step.

    python -m benchmarks.peers.plain_ray CASE

Arithmetic, average and optimizer are Chainrule's own, so that the difference is the way there and back.
"""

import logging
import os
import sys
from typing import Any

import numpy as np
import ray
from threadpoolctl import threadpool_limits

from benchmarks.cases import CASES
from benchmarks.peers.turns import take_turns
from benchmarks.tasks import mlp_task, optimizer_of, synthetic
from service.training.update import Update
from worker.arrays import Array
from worker.blocks import Block
from worker.gradient import Gradient
from worker.task import Data, Task

ACTORS = 2


@ray.remote(num_cpus=1)
class PlainWorker:
    """Computes one shard a call. Its data is in the object store, as Chainrule's is."""

    def __init__(self, task: Task, x: Array, y: Array) -> None:
        threadpool_limits(1)
        self._task = task
        self._data = Data(x, y)

    def gradient(self, params: Array, step: int, shard: int) -> Gradient:
        """The gradient of one shard of one step."""
        return self._task.gradient(self._data, params, step, shard)


def main(name: str) -> None:
    """Trains whenever asked to."""
    case = CASES[name]
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        address="local", num_cpus=ACTORS, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
    )
    threadpool_limits(1)
    task = mlp_task(case, ACTORS)
    x, y = synthetic(case)
    refs = ray.put(x), ray.put(y)
    actor_class: Any = PlainWorker
    actors = [actor_class.remote(task, *refs) for _ in range(ACTORS)]
    params = task.network.initial(0)
    optimizer = optimizer_of(case)
    carried = {name: np.zeros_like(params) for name in optimizer.carries}
    update = Update(task.network.size, params.dtype)
    steps_taken = 0

    def train(samples: int) -> int:
        nonlocal steps_taken
        steps = max(1, samples // case.batch)
        for step in range(steps_taken, steps_taken + steps):
            ref = ray.put(params)
            gradients = ray.get([actor.gradient.remote(ref, step, shard) for shard, actor in enumerate(actors)])
            # What comes back can't be written to; the average works in place.
            blocks = [
                Block(shard, 1, Gradient(g.vector.copy() if shard == 0 else g.vector, g.sums))
                for shard, g in enumerate(gradients)
            ]
            mean = update.average(blocks, ACTORS)
            update.apply(optimizer, params, mean, carried, case.learning_rate, step)
        steps_taken += steps
        return steps * case.batch

    take_turns(train)
    ray.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
