"""A cluster without a cluster: trainers are threads, and workers are function calls."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from service.cluster.cluster import Room
from service.cluster.local_workers import LocalWorkers
from service.data.datasets import Dataset
from service.jobs.events import RateAsked
from service.models.spreading import ask_nobody
from service.training.arrivals import Arrivals
from service.training.session import News, Order, Session, Training
from worker.task import Data


@dataclass(frozen=True)
class LocalCluster:
    """Implements service.cluster.cluster.Cluster within the process."""

    slots: int = 4
    memory_bytes: int = 8 << 30

    def room(self) -> Room:
        return Room(self.slots, self.memory_bytes, held_bytes=1 << 30)

    def want(self, workers: int) -> None:
        """It has what it has."""

    def missing(self) -> str:
        return ""

    @contextmanager
    def train(self, order: Order, dataset: Dataset, data: Data, workers: int) -> Iterator[Training]:  # noqa: ARG002
        training = LocalTraining(order, LocalWorkers(order.task, data, workers, order.spec.precision.dtype))
        try:
            yield training
        finally:
            training.halt()

    help_with = staticmethod(ask_nobody)  # its workers are this process


class LocalTraining:
    """A session in this process."""

    def __init__(self, order: Order, workers: LocalWorkers) -> None:
        self._workers = workers
        self.feed = Arrivals()
        if order.spec.online is not None:
            workers.data = Data(arriving=self.feed.batch)
        self._session = Session(order, lambda: workers, self.feed if order.spec.online else None)

    def news(self, acknowledged: int, timeout: float) -> News:
        return self._session.news(acknowledged, timeout)

    def halt(self) -> None:
        self._session.halt()

    def ask(self, rate: RateAsked) -> None:
        self._session.ask(rate)

    def lend(self, workers: int) -> None:
        self._workers.count = workers
