"""What a step costs beyond arithmetic: real Ray actors, the real exchange, and nothing to compute.

A process of its own, since Ray is started once a process:

    python -m benchmarks.exchange_cost '{"parameters": 25000, "shards": 2, "workers": 2, "nodes": 0, "steps": 2000}'

With nodes, that many Ray nodes are simulated on this machine, and parameters and gradients go by Ray objects: the
node's actors add up what they computed, and the node sends one vector.
"""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import ray
from ray.cluster_utils import Cluster
from threadpoolctl import threadpool_limits

from benchmarks.contenders import ROOT
from benchmarks.tasks import no_arithmetic
from service.cluster.ray_workers import Patience, RayWorkers
from service.training.update import Update
from worker import actor
from worker.actor import BlockRefs
from worker.segment import sweep

START_SECONDS = 60.0


@dataclass(frozen=True)
class Setting:
    """What is measured."""

    parameters: int
    shards: int = 2
    workers: int = 2
    nodes: int = 0
    """0 for shared memory on one node."""
    steps: int = 2000


@dataclass(frozen=True)
class Cost:
    """Medians over steps, in seconds."""

    gather: float
    """Parameters out, gradients back."""
    total: float
    """The same, and the average over shards."""
    exchange: str


def measure(setting: Setting) -> Cost:
    """Measures in a process of its own."""
    environment = dict(os.environ) | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "benchmarks.exchange_cost", json.dumps(asdict(setting))]
    result = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return Cost(**json.loads(result.stdout.splitlines()[-1]))


def main(setting: Setting) -> None:
    """Measures here, and prints it as a line of JSON."""
    threadpool_limits(1)
    task = no_arithmetic(setting.parameters, setting.shards)
    with nodes(setting.workers, setting.nodes, setting.parameters):
        rows = task.shards.rows
        columns = (
            BlockRefs((ray.put(np.zeros((rows, 1), np.float32)),), rows, 1 << 30),
            BlockRefs((ray.put(np.zeros(rows, np.int64)),), rows, 1 << 30),
        )
        prefix = f"chainrule-bench-{os.getpid()}-"
        bounds = (setting.workers, setting.workers)
        workers = RayWorkers(task, columns, bounds, prefix, Patience())
        if setting.nodes:
            sweep(prefix)  # without its name nobody can attach, as on another machine
        actor_class: Any = actor.Worker
        options = dict(actor.OPTIONS) | ({"scheduling_strategy": "SPREAD"} if setting.nodes else {})
        workers.lend({number: actor_class.options(**options).remote() for number in range(setting.workers)})
        if not workers.wait(START_SECONDS):
            raise SystemExit("the workers did not start")
        workers.params[:] = 0
        cost = _cost(workers, Update(task.network.size, workers.params.dtype), setting)
        workers.close()
    print(json.dumps(asdict(cost)))


def _cost(workers: RayWorkers, update: Update, setting: Setting) -> Cost:
    gathers, totals = [], []
    for step in range(setting.steps + setting.steps // 5):
        began = time.perf_counter()
        blocks = workers.gradients(step)
        gathers.append(time.perf_counter() - began)
        # Slots are written into; what came by Ray can only be read. The first is what is added to.
        update.average(blocks if workers.shared() else _writable(blocks), setting.shards)
        workers.spent()  # as a trainer does
        totals.append(time.perf_counter() - began)
    warm = slice(setting.steps // 5, None)
    how = "shared memory" if workers.shared() else f"Ray objects, {setting.nodes} nodes"
    return Cost(float(np.median(gathers[warm])), float(np.median(totals[warm])), how)


def _writable(blocks: Any) -> list[Any]:
    return [type(block)(block.first, block.width, block.total.writable()) for block in blocks]


@contextmanager
def nodes(workers: int, count: int = 0, parameters: int = 0) -> Iterator[None]:
    """Ray with room for so many workers, on this machine or on so many simulated nodes."""
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not count:
        ray.init(address="local", num_cpus=workers, include_dashboard=False, **quiet)
        yield
        ray.shutdown()
        return
    cluster = Cluster()
    each = -(-workers // count)
    for _ in range(count):
        cluster.add_node(num_cpus=each, object_store_memory=max(1 << 28, 40 * parameters))
    try:
        ray.init(address=cluster.address, **quiet)
        yield
        ray.shutdown()
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main(Setting(**json.loads(sys.argv[1])))
