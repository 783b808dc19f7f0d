"""The Ray actor that a trainer runs in: a process of its own on the coordinator's machine, one for each running job.

So a busy loop neither slows the service nor is slowed by its clients, and its memory is its own. If it dies, the
service starts another one from the last checkpoint.
"""

import os
import threading
from dataclasses import replace
from typing import Any

import ray
from threadpoolctl import threadpool_limits

from service.cluster.ray_workers import Patience, RayWorkers
from service.jobs.events import RateAsked
from service.log import Collected
from service.training.arrivals import Answers, Arrivals
from service.training.session import News, Order, Session
from worker.actor import Columns, keep_freed_memory

OPTIONS = {"num_cpus": 0, "max_restarts": 0, "max_concurrency": 8}


@ray.remote
class TrainerActor:
    """Runs the trainer of one job. To be made with the options `OPTIONS`."""

    def __init__(self) -> None:
        threadpool_limits(1)  # its products are small, and it has threads of its own for what is large
        keep_freed_memory()
        self._logged = Collected()
        self._halted = threading.Event()
        self._asked: RateAsked | None = None
        self._session: Session | None = None
        self._arrivals = Arrivals()

    def process(self) -> int:
        """The process id. Answered once the actor is ready."""
        return os.getpid()

    def start(
        self,
        order: Order,
        columns: Columns,
        prefix: str,
        patience: Patience,
        actors: dict[int, Any],
    ) -> None:
        """Begins to train with some workers."""
        # Whatever the most may come to be while it trains: no more workers than shards.
        bounds = (order.spec.min_workers, max(order.spec.shards, order.spec.max_workers))
        self._workers = RayWorkers(order.task, columns, bounds, prefix, patience, order.spec.precision.dtype)
        self._workers.lend(actors)
        self._session = Session(order, lambda: self._workers, self._arrivals if order.spec.online else None)
        if self._halted.is_set():
            self._session.halt()
        if self._asked is not None:
            self._session.ask(self._asked)

    def news(self, acknowledged: int, timeout: float) -> News:
        """What is new. See service.training.session.Training."""
        assert self._session is not None  # noqa: S101 - asked only once the start is over
        return replace(self._session.news(acknowledged, timeout), logged=self._logged.take())

    def put(self, step: int, batch: list[Any]) -> None:
        """Takes the mini-batch of a step: a reference to it, in a list so that Ray leaves it one."""
        self._arrivals.put(step, batch)

    def finish(self, steps: int) -> None:
        """Has the job end after so many steps."""
        self._arrivals.finish(steps)

    def answers(self, after: int, timeout: float) -> Answers | None:
        """See service.training.arrivals.Feed."""
        return self._arrivals.answers(after, timeout)

    def batch(self, step: int) -> list[Any]:
        """What `put` was given for a step, for a worker."""
        found: list[Any] = self._arrivals.batch(step)
        return found

    def lend(self, actors: dict[int, Any]) -> None:
        """Changes which workers it has."""
        self._workers.lend(actors)

    def ask(self, rate: RateAsked) -> None:
        """Asks for another learning rate. It may come before the start is over."""
        self._asked = rate
        if self._session is not None:
            self._session.ask(rate)

    def halt(self) -> None:
        """Has the trainer write a checkpoint and end. It may come before the start is over."""
        self._halted.set()
        if self._session is not None:
            self._session.halt()
