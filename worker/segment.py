"""A job's shared memory: how it is laid out, who may map it, and what wakes whom.

It holds the parameters, a slot for the gradient of every shard, and a mailbox for every worker. Nothing is copied and
nothing is sent, which is what makes a step cheap.

POSIX semaphores and segments live in the same shared memory, so that they work across containers that share it, and
`posix_ipc` leaves their removal to those who made them (multiprocessing's tracker would remove a segment when a process
that merely attached to it ends).
"""

import mmap
import os
import secrets
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate
from pathlib import Path

import numpy as np
import posix_ipc

from worker.arrays import Array
from worker.gradient import Sums
from worker.tables import TableGradient, TableRoom, gathered, spread

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lies on Linux
ALIGNMENT = 64
TOKEN_BYTES = 32

SERVING, ORDER, FINISHED, KIND, STEP, NUMBER, FORWARD, BACKWARD, COUNT = range(9)
ROWS, LOSS, WEIGHT, CHECKSUM, SCORES = range(5)
MAILBOX = 9
"""Words of a mailbox, by number; from word MAILBOX on there are pairs of a shard and its slot. NUMBER to COUNT are the
newest answer's account: whose it is, the nanoseconds that it took forward and backward, and for how many shards."""


class Kind(IntEnum):
    """What an order asks for."""

    GRADIENTS = 0
    EVALUATE = 1
    LEAVE = 2
    LOOK = 3
    """Gradients, and how the layers fared."""


class NotHere(Exception):
    """The segment can't be reached from this process: it is on another host, or not ours."""


@dataclass(frozen=True)
class Layout:
    """How a segment is laid out. Both ends compute the same offsets from the same numbers."""

    parameters: int
    shards: int
    seats: int
    """How many workers can have a mailbox at the same time."""
    training_scores: tuple[tuple[str, int], ...]
    """The scores that come with a gradient, each with how many numbers it sums."""
    scores: tuple[tuple[str, int], ...]
    """Those of the held-out rows."""
    dtype: str = "float32"
    checksums: bool = False
    """Whether slots carry a checksum, for tracking down a fault in the exchange itself."""
    tables: tuple[TableRoom, ...] = ()
    health: int = 0
    """How many numbers are summed in a look at the layers."""

    @property
    def slots(self) -> int:
        """Twice the shards: as many again can be computed a second time while a slow worker still holds its slots."""
        return 2 * self.shards

    @property
    def head(self) -> np.dtype[np.void]:
        """What stands before the vectors."""
        return np.dtype(
            [
                ("token", "u1", (TOKEN_BYTES,)),
                ("mailboxes", "i8", (self.seats, MAILBOX + 2 * self.shards)),
                ("slots", "f8", (self.slots, SCORES + self._most_numbers)),
            ]
        )

    def places(self, kind: "Kind") -> Iterator[tuple[str, slice]]:
        """Where in a slot's header the sums of each score lie that come with an answer."""
        place = SCORES
        for name, size in self.scores if kind == Kind.EVALUATE else self.training_scores:
            yield name, slice(place, place + size)
            place += size

    @property
    def health_place(self) -> slice:
        """Where those of a look lie: behind the scores that come with a gradient."""
        start: int = SCORES + sum(size for _, size in self.training_scores)
        return slice(start, start + self.health)

    @property
    def _most_numbers(self) -> int:
        return max(sum(size for _, size in self.training_scores) + self.health, sum(size for _, size in self.scores))

    @property
    def dense(self) -> int:
        """How long a slot's vector is: as long as the parameters without tables."""
        return self.parameters - sum(table.rows * table.size for table in self.tables)

    @property
    def params_offset(self) -> int:
        """Where the parameters begin."""
        return _aligned(self.head.itemsize)

    def slot_offset(self, number: int) -> int:
        """Where a slot begins; slot number `slots` would begin where the last one ends."""
        return self.params_offset + self._numbers(self.parameters) + number * self.slot_bytes

    @property
    def slot_bytes(self) -> int:
        """What a slot takes, up to where the next one begins."""
        return self._numbers(self.dense) + sum(_aligned(table.bytes(self.dtype)) for table in self.tables)

    def table_offsets(self, slot: int) -> list[int]:
        """Where the rows of each table begin, behind a slot's vector."""
        sizes = [self._numbers(self.dense), *(_aligned(table.bytes(self.dtype)) for table in self.tables)]
        return list(accumulate(sizes[:-1], initial=self.slot_offset(slot)))[1:]

    @property
    def size(self) -> int:
        """The segment's size in bytes."""
        return self.slot_offset(self.slots)

    def _numbers(self, count: int) -> int:
        return _aligned(count * np.dtype(self.dtype).itemsize)


@dataclass(frozen=True)
class Address:
    """What a worker needs to attach to a segment."""

    name: str
    token: bytes
    layout: Layout


class Segment:
    """A job's shared memory, mapped into this process."""

    def __init__(self, address: Address, fd: int) -> None:
        layout = address.layout
        memory = mmap.mmap(fd, layout.size)
        self.address = address
        self.fd = fd
        self.layout = layout
        head = np.frombuffer(memory, layout.head, count=1)[0]
        self.token = head["token"]
        self.mailboxes = [row.data.cast("B").cast("q") for row in head["mailboxes"]]
        self.headers = [row.data.cast("B").cast("d") for row in head["slots"]]
        self.vectors = [
            np.frombuffer(memory, layout.dtype, layout.parameters, layout.params_offset),
            *(
                np.frombuffer(memory, layout.dtype, layout.dense, layout.slot_offset(slot))
                for slot in range(layout.slots)
            ),
        ]
        self._tables = [
            [
                table.views(memory, offset, layout.dtype)
                for table, offset in zip(layout.tables, layout.table_offsets(slot), strict=True)
            ]
            for slot in range(layout.slots)
        ]

    @property
    def params(self) -> Array:
        """The parameters, (parameters,). The trainer alone writes them, while no order is open."""
        return self.vectors[0]

    def slot(self, number: int) -> Array:
        """The vector of a slot, (dense,)."""
        return self.vectors[1 + number]

    def reserve(self, slots: Iterable[int]) -> bool:
        """Makes sure that there is memory behind some slots; whether there is."""
        try:
            for slot in slots:
                os.posix_fallocate(self.fd, self.layout.slot_offset(slot), self.layout.slot_bytes)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Lets go of the descriptor; the mapping stays as long as there are views of it."""
        os.close(self.fd)

    def write_tables(self, slots: Sequence[int], tables: Sequence[TableGradient]) -> None:
        """Puts the rows of tables that shards looked up into the slots of these shards."""
        for number, table in enumerate(tables):
            spread(table, [self._tables[slot][number] for slot in slots])

    def read_tables(self, slots: Sequence[int]) -> tuple[TableGradient, ...]:
        """What `write_tables` put there; of a single slot without a copy."""
        return tuple(
            gathered([self._tables[slot][number] for slot in slots]) for number in range(len(self.layout.tables))
        )

    def write_sums(self, slot: int, kind: Kind, sums: Sums) -> None:
        """Puts the sums of an answer beside a slot's vector."""
        header = self.headers[slot]
        header[ROWS], header[LOSS], header[WEIGHT] = sums.count, sums.loss, sums.weight
        for name, place in self.layout.places(kind):
            header[place] = sums.scores[name].data
        if sums.health is not None:
            header[self.layout.health_place] = sums.health.data
        if self.layout.checksums:
            header[CHECKSUM] = self._checksum(slot)

    def read_sums(self, slot: int, kind: Kind) -> Sums:
        """The sums of an answer, from beside a slot's vector.

        Raises AssertionError if the vector was changed since, where checksums are on.
        """
        header = self.headers[slot]
        if self.layout.checksums:
            assert self._checksum(slot) == header[CHECKSUM], f"slot {slot} was overwritten"  # noqa: S101
        scores = {name: np.array(header[place]) for name, place in self.layout.places(kind)}
        health = np.array(header[self.layout.health_place]) if kind == Kind.LOOK else None
        return Sums(header[LOSS], scores, int(header[ROWS]), header[WEIGHT], health)

    def _checksum(self, slot: int) -> int:
        parts = (self.slot(slot), *(part for table in self._tables[slot] for part in table))
        return zlib.crc32(b"".join(part.tobytes() for part in parts))


def create(prefix: str, layout: Layout) -> Segment:
    """Makes a segment whose name begins with `prefix` and can't be guessed. Raises OSError if there is no room."""
    address = Address(f"/{prefix}{secrets.token_hex(16)}", secrets.token_bytes(TOKEN_BYTES), layout)
    shared = posix_ipc.SharedMemory(address.name, posix_ipc.O_CREX, mode=0o600, size=layout.size)
    try:
        # Room for what every step uses; a page that can't be had later would kill the process that touches it.
        os.posix_fallocate(shared.fd, 0, layout.slot_offset(layout.shards))
        segment = Segment(address, shared.fd)
    except OSError:
        shared.close_fd()
        posix_ipc.unlink_shared_memory(address.name)
        raise
    segment.token[:] = np.frombuffer(address.token, np.uint8)
    return segment


def attach(address: Address) -> Segment:
    """Maps a segment that another process made. Raises NotHere."""
    try:
        shared = posix_ipc.SharedMemory(address.name)
    except (posix_ipc.ExistentialError, posix_ipc.PermissionsError, OSError) as error:
        raise NotHere(str(error)) from error
    if shared.size == address.layout.size:
        segment = Segment(address, shared.fd)
        if secrets.compare_digest(segment.token.tobytes(), address.token):
            return segment
    shared.close_fd()
    raise NotHere("the segment of that name is another one")


def sweep(prefix: str) -> list[str]:
    """Removes segments and semaphores whose names begin with `prefix`; returns what was there."""
    found = [path for path in SHARED_MEMORY.iterdir() if path.name.removeprefix("sem.").startswith(prefix)]
    for path in found:
        path.unlink(missing_ok=True)
    return [path.name for path in found]


def semaphore(address: Address, role: str, *, make: bool = False) -> posix_ipc.Semaphore:
    """A semaphore that belongs to a segment: "done" wakes the trainer, "go<seat>" a worker."""
    flags = posix_ipc.O_CREX if make else 0
    return posix_ipc.Semaphore(f"{address.name}-{role}", flags, mode=0o600)


def wait(waiting: posix_ipc.Semaphore, seconds: float) -> bool:
    """Waits for a semaphore; whether it was raised in time."""
    with suppress(posix_ipc.BusyError, posix_ipc.SignalError):  # a signal ends the wait early
        waiting.acquire(max(seconds, 0.0))
        return True
    return False


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
