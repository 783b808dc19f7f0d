"""Workers that are Ray actors.

Ray places, starts and restarts them; here it is decided who computes which shard, and what becomes of the shards of one
that is lost: others compute them in the same step, and since a shard is a pure function the sum is the same bits.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import ray
import structlog
from ray.exceptions import ObjectLostError, RayActorError, RayError

from service.cluster.pool import Change, Joined, Lost, NoWorkers, PoolError, Workers
from worker.actor import Worker
from worker.arrays import Array
from worker.gradient import Gradient, Sums
from worker.task import Data, Task

JOIN_SECONDS = 10.0
"""How long a cluster that is joined may take to accept a connection."""

START_SECONDS = 120.0
"""How long a job waits for its first worker."""

ANSWER_SECONDS = 300.0
"""How long a worker may take over its shards of a step before it counts as lost."""

T = TypeVar("T", Gradient, Sums)

_log = structlog.get_logger(__name__)


class RayPool:
    """Gives jobs actors of a Ray cluster."""

    def __init__(
        self,
        address: str | None,
        local_slots: int,
        *,
        start_seconds: float = START_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        """Joins the cluster at `address`, or starts one on this machine with room for `local_slots` workers.

        Must be made before any gRPC object exists in this process. Raises PoolError.
        """
        self.start_seconds = start_seconds
        self.answer_seconds = answer_seconds
        # Ray would run workers at nice 15: on few cores a trainer at nice 0 then starves them.
        os.environ.setdefault("RAY_worker_niceness", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            if address:
                _check_answers(address)
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
            why = next(iter(str(error).splitlines()), type(error).__name__)
            raise PoolError(f"can't {where}: {why}") from error

    def close(self) -> None:
        """Leaves the cluster, and ends it if it was started here."""
        ray.shutdown()

    def capacity(self) -> int:
        return int(ray.cluster_resources().get("CPU", 0))  # type: ignore[no-untyped-call]

    @contextmanager
    def open(self, task: Task, data: Data, workers: int) -> Iterator[Workers]:
        # A reference passed to an actor's constructor arrives as a view of the node's one copy. But only a plain array
        # does: one that is mapped from a file would be pickled, and every worker unpickle a copy of its own.
        inputs, targets = ray.put(np.asarray(data.inputs)), ray.put(np.asarray(data.targets))

        actor_class: Any = Worker  # the decorator makes it an actor class, which its type doesn't tell

        def start() -> Any:
            return actor_class.options(num_cpus=1, max_restarts=-1).remote(task, inputs, targets)

        members = RayWorkers([start() for _ in range(workers)], task.shards.shards, self.answer_seconds)
        try:
            members.start(self.start_seconds)
            yield members
        finally:
            members.close()


class RayWorkers:
    """One job's actors. Each is ready, or there is a pending answer that tells when it is, or it is broken for good."""

    def __init__(self, actors: Sequence[Any], shards: int, answer_seconds: float) -> None:
        self._actors = list(actors)
        self._shards = shards
        self._answer_seconds = answer_seconds
        self._pending: dict[Any, int] = {}
        self._ready: list[int] = []
        self._changes: list[Change] = []
        for worker in range(len(self._actors)):
            self._ask(worker)

    def start(self, timeout: float) -> None:
        """Waits up to `timeout` seconds for the first worker. Raises PoolError."""
        if not self.wait(timeout):
            raise PoolError(f"none of the {len(self._actors)} workers started within {timeout:g} seconds")
        # Those that start a job have not come back.
        self._changes = [change for change in self._changes if isinstance(change, Lost)]

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
        self._admit(timeout)
        while not self._ready and time.monotonic() < deadline:
            self._admit(deadline - time.monotonic())
        return bool(self._ready)

    def close(self) -> None:
        """Ends the actors."""
        for actor in self._actors:
            ray.kill(actor, no_restart=True)

    def _compute(self, call: Callable[[Any, tuple[int, ...]], Any]) -> list[Any]:
        """Has every shard computed by some worker, those of lost workers again by others.

        An error in the numerics (RayTaskError) is let through: every worker would make it.
        """
        self._admit(0)
        results: dict[int, Any] = {}
        while missing := [shard for shard in range(self._shards) if shard not in results]:
            if not self._ready:
                raise NoWorkers
            calls: dict[Any, tuple[int, tuple[int, ...]]] = {}
            for place, worker in enumerate(self._ready):
                if shards := tuple(missing[place :: len(self._ready)]):
                    calls[call(self._actors[worker], shards)] = worker, shards
            done, late = ray.wait(list(calls), num_returns=len(calls), timeout=self._answer_seconds)
            for answer in done:
                worker, shards = calls[answer]
                try:
                    results.update(zip(shards, ray.get(answer), strict=True))
                except (RayActorError, ObjectLostError):  # the latter if the answer went down with the worker's node
                    self._lose(worker, "its process ended")
            for answer in late:
                worker, _ = calls[answer]
                ray.kill(self._actors[worker], no_restart=False)
                self._lose(worker, f"did not answer within {self._answer_seconds:g} seconds")
        return [results[shard] for shard in range(self._shards)]

    def _lose(self, worker: int, reason: str) -> None:
        self._ready.remove(worker)
        self._changes.append(Lost(worker, reason))
        self._ask(worker)

    def _admit(self, timeout: float) -> None:
        """Takes in the workers that have become ready. Raises PoolError if there are none and never will be."""
        done, _ = ray.wait(list(self._pending), num_returns=1, timeout=max(0.0, timeout)) if self._pending else ([], [])
        for answer in done:
            worker = self._pending.pop(answer)
            try:
                ray.get(answer)
            except RayError as error:
                # Ray starts a worker again however often its process ends, but not if its constructor fails.
                _log.error("worker can't be started", worker=worker, error=str(error))
                self._changes.append(Lost(worker, "it can't be started"))
            else:
                self._ready = sorted([*self._ready, worker])
                self._changes.append(Joined(worker))
        if not self._ready and not self._pending:
            raise PoolError("no worker can be started; the service's log says why")

    def _ask(self, worker: int) -> None:
        """Has the worker, once it is ready, say so. Retried, the question waits for a process that takes the place of
        one that ended."""
        self._pending[self._actors[worker].process.options(max_task_retries=-1).remote()] = worker


def _check_answers(address: str) -> None:
    """Raises OSError if nobody is at HOST:PORT, which Ray takes minutes to find out."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if host and port.isdecimal() and int(port) < 1 << 16:
        socket.create_connection((host.strip("[]"), int(port)), JOIN_SECONDS).close()
