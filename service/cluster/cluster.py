"""What the service needs of a cluster: how much room it has, and trainers with workers."""

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from service.data.datasets import Dataset
from service.training.session import Order, Training
from worker.task import Data

P = TypeVar("P")
R = TypeVar("R")


class ClusterError(Exception):
    """The cluster can't be used; the message says why."""


@dataclass(frozen=True)
class Room:
    """What there is room for."""

    workers: int
    """How many all jobs together may have."""
    memory_bytes: int
    """The memory of the machine that trainers run on."""
    held_bytes: int
    """How much of a column a worker may hold."""
    grows: bool = False
    """Whether machines may join, so that a job that is too large today may fit tomorrow: it waits."""


class Cluster(Protocol):
    """Runs trainers."""

    def room(self) -> Room:
        """What there is room for now."""

    def want(self, workers: int) -> None:
        """Says how many workers all jobs together could use, for whatever makes the cluster grow and shrink."""

    def missing(self) -> str:
        """What of the cluster itself is not there, so that nothing that fails is a job's own fault; "" if all is."""

    def train(self, order: Order, dataset: Dataset, data: Data, workers: int) -> AbstractContextManager[Training]:
        """Starts a trainer with `workers` workers; ends both when the context is left."""

    def help_with(self, work: Callable[[P], R], part: P) -> "Future[R] | None":
        """Has a worker that no job has compute `work(part)`: see service.models.spreading."""
