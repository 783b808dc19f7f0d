"""What the trainer needs of a cluster, and no more.

The trainer says which step it is at; the pool brings back one gradient for every shard, in shard order, whoever
computed them and however often it had to be tried.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from worker.arrays import Array
from worker.gradient import Gradient, Sums
from worker.task import Data, Task


@dataclass(frozen=True)
class Lost:
    """A worker died, stopped answering or can't be started."""

    worker: int
    reason: str


@dataclass(frozen=True)
class Joined:
    """A worker came back."""

    worker: int


Change: TypeAlias = Lost | Joined


class NoWorkers(Exception):
    """All workers of a job are lost. The call that raised it can be repeated once one is back."""


class PoolError(Exception):
    """The cluster can't give a job its workers; the message says why."""


class Workers(Protocol):
    """The workers of one job. Any of the calls raises PoolError once there is no worker and can't be one again."""

    def gradients(self, params: Array, step: int) -> Sequence[Gradient]:
        """The gradient of every shard of a step, in shard order. Raises NoWorkers."""

    def evaluate(self, params: Array) -> Sequence[Sums]:
        """Loss and scores of every shard of the held-out rows, in shard order. Raises NoWorkers."""

    def ready(self) -> int:
        """How many workers would take part in a step now."""

    def changes(self) -> Sequence[Change]:
        """What happened to the workers since the last call, in order."""

    def wait(self, timeout: float) -> bool:
        """Waits up to `timeout` seconds until a worker is ready; whether one is."""


class WorkerPool(Protocol):
    """Gives jobs their workers."""

    def capacity(self) -> int:
        """How many workers all jobs together may have."""

    def open(self, task: Task, data: Data, workers: int) -> AbstractContextManager[Workers]:
        """Starts `workers` workers for a job, and ends them when the context is left. Raises PoolError."""
