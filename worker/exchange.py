"""Both ends of the exchange through shared memory.

A job has one segment: the parameters, a slot for the gradient of every shard, and a mailbox for every worker. The
trainer puts an order into a worker's mailbox and wakes it; the worker writes into the slots it was given, says so in
its mailbox, and wakes the trainer. Nothing is copied and nothing is sent, which is what makes a step cheap.

Fences. An order has a number, and a worker's answer counts only under the number of its newest order. A slot belongs to
one order until that is finished or its worker is known to be dead, so that a late write lands where nobody reads.

POSIX semaphores and segments live in the same shared memory, so that they work across containers that share it, and
`posix_ipc` leaves their removal to those who made them (multiprocessing's tracker would remove a segment when a process
that merely attached to it ends).
"""

import fcntl
import mmap
import os
import secrets
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
import posix_ipc

from worker.arrays import Array
from worker.blocks import Block, merge, merges
from worker.gradient import Gradient, Sums
from worker.task import Data, Task

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lies on Linux
ALIGNMENT = 64
TOKEN_BYTES = 32
PATIENCE_SECONDS = 0.5
"""How often a worker without an order looks whether it is still wanted."""

SERVING, ORDER, FINISHED, KIND, STEP, COUNT = range(6)
ROWS, LOSS, WEIGHT, CHECKSUM, SCORES = range(5)
MAILBOX = 8
"""Words of a mailbox, by number; from word MAILBOX on there are pairs of a shard and its slot."""


class Kind(IntEnum):
    """What an order asks for."""

    GRADIENTS = 0
    EVALUATE = 1
    LEAVE = 2


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
        for name, size in self.training_scores if kind == Kind.GRADIENTS else self.scores:
            yield name, slice(place, place + size)
            place += size

    @property
    def _most_numbers(self) -> int:
        return max(sum(size for _, size in scores) for scores in (self.training_scores, self.scores))

    @property
    def vector_bytes(self) -> int:
        """What a vector takes, up to where the next one begins."""
        return _aligned(self.parameters * np.dtype(self.dtype).itemsize)

    def vector_offset(self, number: int) -> int:
        """Where a vector begins: number 0 is the parameters, the slots follow."""
        return _aligned(self.head.itemsize) + number * self.vector_bytes

    @property
    def size(self) -> int:
        """The segment's size in bytes."""
        return self.vector_offset(1 + self.slots)


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
            np.frombuffer(memory, layout.dtype, layout.parameters, layout.vector_offset(number))
            for number in range(1 + layout.slots)
        ]

    @property
    def params(self) -> Array:
        """The parameters, (parameters,). The trainer alone writes them, while no order is open."""
        return self.vectors[0]

    def slot(self, number: int) -> Array:
        """The vector of a slot, (parameters,)."""
        return self.vectors[1 + number]

    def reserve(self, slots: Iterable[int]) -> bool:
        """Makes sure that there is memory behind some slots; whether there is."""
        try:
            for slot in slots:
                os.posix_fallocate(self.fd, self.layout.vector_offset(1 + slot), self.layout.vector_bytes)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Lets go of the descriptor; the mapping stays as long as there are views of it."""
        os.close(self.fd)

    def write_sums(self, slot: int, kind: Kind, sums: Sums) -> None:
        """Puts the sums of an answer beside a slot's vector."""
        header = self.headers[slot]
        header[ROWS], header[LOSS], header[WEIGHT] = sums.count, sums.loss, sums.weight
        for name, place in self.layout.places(kind):
            header[place] = sums.scores[name].data
        if self.layout.checksums:
            header[CHECKSUM] = zlib.crc32(self.slot(slot).tobytes())

    def read_sums(self, slot: int, kind: Kind) -> Sums:
        """The sums of an answer, from beside a slot's vector.

        Raises AssertionError if the vector was changed since, where checksums are on.
        """
        header = self.headers[slot]
        if self.layout.checksums:
            assert zlib.crc32(self.slot(slot).tobytes()) == header[CHECKSUM], f"slot {slot} was overwritten"  # noqa: S101
        scores = {name: np.array(header[place]) for name, place in self.layout.places(kind)}
        return Sums(header[LOSS], scores, int(header[ROWS]), header[WEIGHT])


def create(prefix: str, layout: Layout) -> Segment:
    """Makes a segment whose name begins with `prefix` and can't be guessed. Raises OSError if there is no room."""
    address = Address(f"/{prefix}{secrets.token_hex(16)}", secrets.token_bytes(TOKEN_BYTES), layout)
    shared = posix_ipc.SharedMemory(address.name, posix_ipc.O_CREX, mode=0o600, size=layout.size)
    try:
        # Room for what every step uses; a page that can't be had later would kill the process that touches it.
        os.posix_fallocate(shared.fd, 0, layout.vector_offset(1 + layout.shards))
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


def serve(segment: Segment, seat: int, task: Task, data: Data, unwanted: Callable[[], bool]) -> None:
    """A worker's end: carries out the orders in the mailbox of its seat, until one says to leave or it is unwanted."""
    mailbox = segment.mailboxes[seat]
    go, done = (semaphore(segment.address, role) for role in (f"go{seat}", "done"))
    task.network.keep_views(segment.vectors)
    with closing(go), closing(done), _alive(segment, seat):
        finished = mailbox[FINISHED]
        while not unwanted():
            if not wait(go, PATIENCE_SECONDS) or mailbox[ORDER] == finished:
                continue
            finished = mailbox[ORDER]
            if mailbox[KIND] == Kind.LEAVE:
                return
            _carry_out(segment, mailbox, task, data)
            mailbox[FINISHED] = finished
            done.release()


@contextmanager
def _alive(segment: Segment, seat: int) -> Iterator[None]:
    """Holds a lock on the seat's byte of the segment, which the kernel lets go of when the process ends, however.

    One that leaves, or fails, says that it no longer serves, so that it isn't taken for dead.
    """
    shared = posix_ipc.SharedMemory(segment.address.name)
    try:
        # A lock of this descriptor: one of the process would be gone as soon as it closed any other of the segment.
        fcntl.fcntl(shared.fd, fcntl.F_OFD_SETLKW, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, seat, 1, 0))
        segment.mailboxes[seat][SERVING] = 1
        yield
    finally:
        segment.mailboxes[seat][SERVING] = 0
        shared.close_fd()


def _carry_out(segment: Segment, mailbox: memoryview, task: Task, data: Data) -> None:
    kind, step, count = mailbox[KIND], mailbox[STEP], mailbox[COUNT]
    words = mailbox[MAILBOX : MAILBOX + 2 * count].tolist()
    slots = dict(zip(words[::2], words[1::2], strict=True))
    blocks = []
    for shard, slot in slots.items():
        if kind == Kind.GRADIENTS:
            total = task.gradient(data, segment.params, step, shard, segment.slot(slot))
        else:
            total = Gradient(_NOTHING, task.evaluate(data, segment.params, shard))
        blocks.append(Block(shard, 1, total))
    for block in merge(blocks, segment.layout.shards) if len(blocks) > 1 else blocks:
        segment.write_sums(slots[block.first], Kind(kind), block.total.sums)


_NOTHING = np.empty(0, np.float32)


class Seat:
    """The trainer's end for one worker."""

    def __init__(self, segment: Segment, number: int) -> None:
        self.number = number
        self._segment = segment
        self._mailbox = segment.mailboxes[number]
        for word in (ORDER, FINISHED, SERVING):
            self._mailbox[word] = 0
        self._go = semaphore(segment.address, f"go{number}", make=True)
        self._slots: dict[int, int] = {}
        self._kind = Kind.GRADIENTS

    def order(self, kind: Kind, step: int, slots: dict[int, int]) -> None:
        """Gives the worker shards to compute, each with the slot to write it into."""
        box = self._mailbox
        box[KIND], box[STEP], box[COUNT] = kind, step, len(slots)
        for place, (shard, slot) in enumerate(slots.items()):
            box[MAILBOX + 2 * place], box[MAILBOX + 2 * place + 1] = shard, slot
        box[ORDER] += 1
        self._slots, self._kind = slots, kind
        self._go.release()

    def is_finished(self) -> bool:
        """Whether the newest order is carried out."""
        return bool(self._mailbox[FINISHED] == self._mailbox[ORDER])

    def is_dead(self) -> bool:
        """Whether the worker's process ended while it served.

        Known at once, where Ray takes a second to notice; and across containers, where process ids mean nothing.
        """
        if not self._mailbox[SERVING]:
            return False
        try:
            fcntl.lockf(self._segment.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self.number)
        except OSError:
            return False
        fcntl.lockf(self._segment.fd, fcntl.LOCK_UN, 1, self.number)
        return True

    def blocks(self) -> list[Block]:
        """What the newest order brought. The vectors are the slots themselves."""
        shards = self._segment.layout.shards
        _, remaining = merges(((shard, 1) for shard in self._slots), shards)
        return [
            Block(first, width, Gradient(self._vector(first), self._segment.read_sums(self._slots[first], self._kind)))
            for first, width in remaining
        ]

    def leave(self) -> None:
        """Tells the worker to go."""
        self.order(Kind.LEAVE, 0, {})

    def close(self) -> None:
        """Removes the semaphore."""
        with suppress(posix_ipc.ExistentialError):
            self._go.unlink()  # while it is open: a closed one refuses
        self._go.close()

    def _vector(self, shard: int) -> Array:
        return self._segment.slot(self._slots[shard]) if self._kind == Kind.GRADIENTS else _NOTHING


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
