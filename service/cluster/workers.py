"""What the trainer needs of its workers, and no more.

The trainer says which step it is at; the workers bring back the sum over all shards in a few blocks, whoever computed
them and however often it had to be tried.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from worker.arrays import Array
from worker.blocks import Block


@dataclass(frozen=True)
class Lost:
    """A worker died or stopped answering."""

    worker: int
    reason: str


@dataclass(frozen=True)
class Joined:
    """A worker came, or came back. `exchange` is how it gets the parameters: "shared_memory" or "ray_objects"."""

    worker: int
    exchange: str


Change: TypeAlias = Lost | Joined


class TooFewWorkers(Exception):
    """Fewer workers than the job needs. The call that raised it can be repeated once there are enough."""


class WorkersError(Exception):
    """The cluster can't give a job its workers; the message says why."""


class Workers(Protocol):
    """The workers of one job, as its trainer sees them."""

    @property
    def params(self) -> Array:
        """The parameters that workers read, (parameters,). The trainer writes them between two calls."""

    def gradients(self, step: int) -> Sequence[Block]:
        """The gradients of all shards of a step, added as far as was convenient. Raises TooFewWorkers.

        The vectors are the caller's until the next call.
        """

    def evaluate(self) -> Sequence[Block]:
        """Loss and scores of the held-out rows, in the same way, with empty vectors. Raises TooFewWorkers."""

    def ready(self) -> int:
        """How many workers would take part in a step now."""

    def shared(self) -> int:
        """How many of those get the parameters through shared memory."""

    def changes(self) -> Sequence[Change]:
        """What happened to the workers since the last call, in order."""

    def wait(self, timeout: float) -> bool:
        """Waits up to `timeout` seconds until there are enough workers; whether there are."""
