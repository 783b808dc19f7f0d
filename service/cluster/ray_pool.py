"""Workers that are Ray actors.

Ray places, starts and restarts them; here it is decided who computes which shard, and what becomes of the shards of one
that is lost: others compute them in the same step, and since a shard is a pure function the sum is the same bits.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from service.cluster.pool import Change, Joined, Lost, NoWorkers, PoolError, Workers
from worker.actor import Worker
from worker.arrays import Array
from worker.gradient import Gradient, Sums
from worker.task import Data, Task

START_SECONDS = 120.0
"""How long a job waits for its first worker."""

ANSWER_SECONDS = 300.0
"""How long a worker may take over its shards of a step before it counts as lost."""

T = TypeVar("T", Gradient, Sums)


class RayPool:
    """Gives jobs actors of a Ray cluster."""

    def __init__(self, address: str | None, local_slots: int) -> None:
        """Joins the cluster at `address`, or starts one on this machine with room for `local_slots` workers.

        Must be made before any gRPC object exists in this process. Raises PoolError.
        """
        # Ray would run workers at nice 15: on few cores a trainer at nice 0 then starves them.
        os.environ.setdefault("RAY_worker_niceness", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            ray.init(
                address=address or "local",
                num_cpus=None if address else local_slots,
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                namespace="chainrule",
            )
        except (RayError, ConnectionError, ValueError, RuntimeError, OSError) as error:
            where = f"join the Ray cluster at {address}" if address else "start Ray on this machine"
            raise PoolError(f"can't {where}: {str(error).splitlines()[0]}") from error

    def close(self) -> None:
        """Leaves the cluster, and ends it if it was started here."""
        ray.shutdown()

    def capacity(self) -> int:
        return int(ray.cluster_resources().get("CPU", 0))  # type: ignore[no-untyped-call]

    @contextmanager
    def open(self, task: Task, data: Data, workers: int) -> Iterator[Workers]:
        # A reference passed to an actor's constructor arrives as a view of the node's one copy.
        inputs, targets = ray.put(data.inputs), ray.put(data.targets)

        actor_class: Any = Worker  # the decorator makes it an actor class, which its type doesn't tell

        def start() -> Any:
            return actor_class.options(num_cpus=1, max_restarts=-1).remote(task, inputs, targets)

        members = RayWorkers([start() for _ in range(workers)], task.shards.shards)
        try:
            if not members.wait(START_SECONDS):
                raise PoolError(f"none of the {workers} workers started within {START_SECONDS:.0f} seconds")
            members.changes()  # those that start a job have not come back
            yield members
        finally:
            members.close()


class RayWorkers:
    """One job's actors. A worker is either ready, or there is a pending answer that tells when it is."""

    def __init__(self, actors: Sequence[Any], shards: int) -> None:
        self._actors = list(actors)
        self._shards = shards
        self._pending = {actor.process.remote(): worker for worker, actor in enumerate(self._actors)}
        self._ready: list[int] = []
        self._changes: list[Change] = []

    def gradients(self, params: Array, step: int) -> Sequence[Gradient]:
        shared = ray.put(params)
        return self._compute(lambda actor, shards: actor.gradients.remote(shared, step, shards))

    def evaluate(self, params: Array) -> Sequence[Sums]:
        shared = ray.put(params)
        return self._compute(lambda actor, shards: actor.evaluate.remote(shared, shards))

    def ready(self) -> int:
        return len(self._ready)

    def changes(self) -> Sequence[Change]:
        changes, self._changes = self._changes, []
        return changes

    def wait(self, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while not self._ready and time.monotonic() < deadline:
            self._admit(min(1.0, timeout))
        return bool(self._ready)

    def close(self) -> None:
        """Ends the actors."""
        for actor in self._actors:
            ray.kill(actor, no_restart=True)

    def _compute(self, call: Callable[[Any, tuple[int, ...]], Any]) -> list[Any]:
        """Has every shard computed by some worker, those of lost workers again by others."""
        if self._pending:
            self._admit(0)
        results: dict[int, Any] = {}
        while missing := [shard for shard in range(self._shards) if shard not in results]:
            if not self._ready:
                raise NoWorkers
            calls = {}
            for place, worker in enumerate(self._ready):
                if shards := tuple(missing[place :: len(self._ready)]):
                    calls[worker] = (shards, call(self._actors[worker], shards))
            deadline = time.monotonic() + ANSWER_SECONDS
            for worker, (shards, answer) in calls.items():
                try:
                    values = ray.get(answer, timeout=max(0.0, deadline - time.monotonic()))
                except RayTaskError:
                    raise  # an error in the numerics, which every worker would make
                except GetTimeoutError:
                    self._lose(worker, f"did not answer within {ANSWER_SECONDS:.0f} seconds")
                    ray.kill(self._actors[worker], no_restart=False)
                except RayActorError:
                    self._lose(worker, "its process ended")
                else:
                    results.update(zip(shards, values, strict=True))
        return [results[shard] for shard in range(self._shards)]

    def _lose(self, worker: int, reason: str) -> None:
        self._ready.remove(worker)
        self._changes.append(Lost(worker, reason))
        self._ask(worker)

    def _admit(self, timeout: float) -> None:
        """Takes in the workers that have become ready."""
        done, _ = ray.wait(list(self._pending), num_returns=1, timeout=timeout)
        for answer in done:
            worker = self._pending.pop(answer)
            try:
                ray.get(answer)
            except RayActorError:
                self._ask(worker)  # it died once more, or is still on its way
                time.sleep(0.05)
            else:
                self._ready = sorted([*self._ready, worker])
                self._changes.append(Joined(worker))

    def _ask(self, worker: int) -> None:
        self._pending[self._actors[worker].process.remote()] = worker
