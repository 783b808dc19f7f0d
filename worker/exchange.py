"""Both ends of the exchange through shared memory.

The trainer puts an order into a worker's mailbox and wakes it; the worker writes into the slots it was given, says so
in its mailbox, and wakes the trainer. segment.py says what lies where.

Fences. An order has a number, and a worker's answer counts only under the number of its newest order. A slot belongs to
one order until that is finished or its worker is known to be dead, so that a late write lands where nobody reads.
"""

import fcntl
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import numpy as np
import posix_ipc

from worker.blocks import Block, merges
from worker.gradient import Gradient
from worker.orders import carry_out
from worker.segment import (
    BACKWARD,
    COUNT,
    FINISHED,
    FORWARD,
    KIND,
    MAILBOX,
    NUMBER,
    ORDER,
    SERVING,
    STEP,
    Kind,
    Segment,
    semaphore,
    wait,
)
from worker.task import Computation, Data

WATCH_SECONDS = 0.0005
"""How long a worker looks for its next order before it goes to sleep, if the one before came as soon as that."""

PATIENCE_SECONDS = 0.5
"""How often a worker without an order looks whether it is still wanted."""


def serve(segment: Segment, seat: int, task: Computation, data: Data, unwanted: Callable[[], bool]) -> None:
    """A worker's end: carries out the orders in the mailbox of its seat, until one says to leave or it is unwanted."""
    mailbox = segment.mailboxes[seat]
    go, done = (semaphore(segment.address, role) for role in (f"go{seat}", "done"))
    task.network.keep_views(segment.vectors)
    with closing(go), closing(done), _alive(segment, seat):
        finished = mailbox[FINISHED]
        # A processor is left to the trainer. With all of them kept busy by looking, it would have to share one.
        watches = seat + 1 < (os.cpu_count() or 1)
        ready, waited = time.perf_counter(), 0.0
        while not unwanted():
            if watches and waited < WATCH_SECONDS:
                _watch(mailbox, finished, ready + WATCH_SECONDS)
            if not wait(go, PATIENCE_SECONDS) or mailbox[ORDER] == finished:
                continue
            waited = time.perf_counter() - ready
            finished = mailbox[ORDER]
            if mailbox[KIND] == Kind.LEAVE:
                return
            kind, step, shards = _carry_out(segment, mailbox, task, data)
            mailbox[FINISHED] = finished
            done.release()  # from here on the mailbox is the next order's
            if kind != Kind.EVALUATE:
                task.foresee(data, segment.params.dtype, step + 1, shards)
            ready = time.perf_counter()


def _watch(mailbox: memoryview, finished: int, until: float) -> None:
    """Looks out for the next order until some time, and lets whoever has something to do go first.

    Of a small network the next order comes sooner than a processor wakes from its sleep.
    """
    while mailbox[ORDER] == finished and time.perf_counter() < until:
        os.sched_yield()


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


def _carry_out(segment: Segment, mailbox: memoryview, task: Computation, data: Data) -> tuple[Kind, int, list[int]]:
    """Returns what was ordered: of what kind, for which step, and which shards."""
    kind, step, count = Kind(mailbox[KIND]), mailbox[STEP], mailbox[COUNT]
    words = mailbox[MAILBOX : MAILBOX + 2 * count].tolist()
    slots = dict(zip(words[::2], words[1::2], strict=True))
    outs = {shard: segment.slot(slot) for shard, slot in slots.items()}
    blocks, took = carry_out(task, data, segment.params, kind, step, outs)
    mailbox[FORWARD], mailbox[BACKWARD] = int(took.forward * 1e9), int(took.backward * 1e9)
    for block in blocks:
        segment.write_tables(_slots_of(block.first, block.width, slots), block.total.tables)
        segment.write_sums(slots[block.first], kind, block.total.sums)
    return kind, step, list(slots)


_NOTHING = np.empty(0, np.float32)
"""The vector of an answer that has none."""


class Seat:
    """The trainer's end for one worker."""

    def __init__(self, segment: Segment, number: int) -> None:
        self.number = number
        self._segment = segment
        self._mailbox = segment.mailboxes[number]
        for word in (ORDER, FINISHED, SERVING):
            self._mailbox[word] = 0
        self._mailbox[NUMBER] = number
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
        _, remaining = merges(((shard, 1) for shard in self._slots), self._segment.layout.shards)
        return [Block(first, width, self._total(first, width)) for first, width in remaining]

    def account(self) -> bytes:
        """What the newest order took, once it is finished: the words of the mailbox that say so, as they are."""
        return bytes(self._mailbox[NUMBER:MAILBOX])

    def leave(self) -> None:
        """Tells the worker to go."""
        self.order(Kind.LEAVE, 0, {})

    def close(self) -> None:
        """Removes the semaphore."""
        with suppress(posix_ipc.ExistentialError):
            self._go.unlink()  # while it is open: a closed one refuses
        self._go.close()

    def _total(self, first: int, width: int) -> Gradient:
        segment, slot = self._segment, self._slots[first]
        if self._kind == Kind.EVALUATE:
            return Gradient(_NOTHING, segment.read_sums(slot, self._kind))
        tables = segment.read_tables(_slots_of(first, width, self._slots))
        return Gradient(segment.slot(slot), segment.read_sums(slot, self._kind), tables)


def _slots_of(first: int, width: int, slots: dict[int, int]) -> list[int]:
    """The slots of the shards that a block is the sum over, in their order."""
    return [slots[shard] for shard in range(first, first + width) if shard in slots]
