"""What the trainer needs of its workers, and no more.

The trainer says which step it is at; the workers bring back the sum over all shards in a few blocks, whoever computed
them and however often it had to be tried.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from struct import Struct
from typing import Literal, NamedTuple, Protocol, TypeAlias, get_args

from worker.arrays import Array
from worker.blocks import Block
from worker.orders import Took

Cause: TypeAlias = Literal["process_ended", "too_slow", "not_joined", "unreachable"]

CAUSES: tuple[Cause, ...] = get_args(Cause)
"""Why a worker can be lost: its process ended, or its machine; it took too long to answer, or to join; its answer was
lost on the way."""


@dataclass(frozen=True)
class Lost:
    """A worker died or stopped answering."""

    worker: int
    reason: str
    cause: Cause = "process_ended"
    at: float = field(default_factory=time.monotonic, compare=False)
    """When that was seen, by the monotonic clock."""


@dataclass(frozen=True)
class Joined:
    """A worker came, or came back. `exchange` is how it gets the parameters: "shared_memory" or "ray_objects"."""

    worker: int
    exchange: str
    at: float = field(default_factory=time.monotonic, compare=False)
    """When it did, by the monotonic clock."""


Change: TypeAlias = Lost | Joined


class Computed(NamedTuple):
    """An order that a worker carried out, and how long it says that it took."""

    worker: int
    forward: int
    """Nanoseconds to take the rows and go forward through the network, or to play episodes."""
    backward: int
    """Nanoseconds for all that came after, to the sum of the worker's shards."""
    shards: int


OF_ORDER = Struct("4q")
"""A Computed as bytes. As objects they would wait by the thousand until somebody counts them, and the garbage collector
would go through them again and again, which cost the shortest steps 2 %."""


def computed(worker: int, took: Took) -> Computed:
    """What a worker took, in nanoseconds."""
    return Computed(worker, int(took.forward * 1e9), int(took.backward * 1e9), took.shards)


def packed(*orders: Computed) -> bytes:
    """Orders as bytes."""
    return b"".join(OF_ORDER.pack(*order) for order in orders)


class Spent(NamedTuple):
    """What went into some questions."""

    split: float = 0.0
    """Seconds in which orders were given."""
    gather: float = 0.0
    """Seconds in which the last answers were taken in."""
    computed: bytes = b""
    """A Computed of each order that was carried out, packed."""
    exchanged: int = 0
    """Bytes: parameters that each order was given to read, and gradients that came back, workers' own sums once."""
    late: bytes = b""
    """As `computed`, of orders for questions that had been answered without them."""


class TooFewWorkers(Exception):
    """Fewer workers than the job needs. The call that raised it can be repeated once there are enough."""


class WorkersError(Exception):
    """The cluster can't give a job its workers; the message says why."""


class Workers(Protocol):
    """The workers of one job, as its trainer sees them."""

    @property
    def params(self) -> Array:
        """The parameters that workers read, (parameters,). The trainer writes them between two calls."""

    def gradients(self, step: int, *, look: bool = False) -> Sequence[Block]:
        """The gradients of all shards of a step, added as far as was convenient. Raises TooFewWorkers.

        With a `look`, the sums of how the layers fared come with them: see worker.health. The vectors are the
        caller's until the next call.
        """

    def evaluate(self) -> Sequence[Block]:
        """Loss and scores of the held-out rows, in the same way, with empty vectors. Raises TooFewWorkers."""

    def spent(self) -> Spent:
        """What went into the questions since the last call of this."""

    def ready(self) -> int:
        """How many workers would take part in a step now."""

    def shared(self) -> int:
        """How many of those get the parameters through shared memory."""

    def changes(self) -> Sequence[Change]:
        """What happened to the workers since the last call, in order."""

    def wait(self, timeout: float) -> bool:
        """Waits up to `timeout` seconds until there are enough workers; whether there are."""
