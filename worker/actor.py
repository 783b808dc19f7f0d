"""A worker: the Ray actor that computes shards of whatever job it is lent to.

A worker belongs to no job, so that one that is warm can begin at once. For a job it joins: it learns the task, finds
out whether it can reach the job's shared memory, and then either serves there, in one long call, or is called for every
step. Nothing it learned matters to the next job, and Ray may start it anew at any moment.
"""

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import ray
from threadpoolctl import threadpool_limits

from worker.arrays import Array
from worker.blocks import Block, merge
from worker.columns import BlockedColumn
from worker.exchange import serve
from worker.gradient import Batch
from worker.orders import Took, carry_out
from worker.segment import Address, Kind, NotHere, Segment, attach
from worker.task import Computation, Data
from worker.versions import versions

FETCH_SECONDS = 120.0
"""How long a block of a dataset may take to come from another node or from disk."""


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Options of glibc's mallopt, by number, as malloc.h has them."""

OPTIONS = {"num_cpus": 1, "max_restarts": -1, "max_concurrency": 4}
"""How the actor is made. Calls run on threads of their own: while `serve` sits in its loop, `leave` gets through.

What it helps with takes turns on a thread beside those."""


@dataclass(frozen=True)
class BlockRefs:
    """Where a column lies in the object store."""

    refs: tuple[Any, ...]
    rows_a_block: int
    held_bytes: int

    def column(self) -> BlockedColumn:
        """The column, its blocks fetched when they are needed: views of the node's one copy."""
        fetch: Callable[[int], Array] = lambda number: ray.get(self.refs[number], timeout=FETCH_SECONDS)  # noqa: E731
        return BlockedColumn(fetch, self.rows_a_block, self.held_bytes)


@dataclass(frozen=True)
class Arriving:
    """Where mini-batches are that come while the job runs: the trainer knows, and they lie in the object store."""

    trainer: Any
    """Has a method `batch` that gives, in a list, a reference to the batch of a step."""

    def data(self) -> Data:
        """Gives the batch of a step, fetched once for all its shards: a view of the node's one copy."""

        @lru_cache(maxsize=1)
        def batch(step: int) -> Batch:
            (ref,) = ray.get(self.trainer.batch.remote(step), timeout=FETCH_SECONDS)
            found: Batch = ray.get(ref, timeout=FETCH_SECONDS)
            return found

        return Data(arriving=batch)


Columns: TypeAlias = tuple[BlockRefs, ...] | Arriving
"""Inputs and targets; and weights, if the job has some. Or where they come while it runs."""


class Answer(NamedTuple):
    """What some workers computed, as a Ray object."""

    blocks: list[Block]
    took: list[Took]
    """How long it took each of them."""


@dataclass(frozen=True)
class Membership:
    """What a worker says when it has joined a job."""

    process: int
    node: str
    shared: bool
    """Whether it reaches the job's shared memory."""
    versions: str = ""
    """Of what computes there; "" where they are so old that nothing is said of them."""


class NotJoined(Exception):
    """The worker doesn't know the job: its process is a new one, or another job was joined since."""


@dataclass(frozen=True)
class _Job:
    """What a worker knows of the job that it works for."""

    name: str
    task: Computation
    data: Data
    segment: Segment | None
    left: threading.Event


@ray.remote(concurrency_groups={"help": 1})  # type: ignore[call-overload]  # which Ray knows, but not its types
class Worker:
    """Computes shards. To be made with the options `OPTIONS`."""

    def __init__(self) -> None:
        # One thread each: two workers with two threads each on two cores take turns instead of working. It also
        # fixes the order in which a product is summed, and with it the bits.
        threadpool_limits(1)
        keep_freed_memory()
        self._job: _Job | None = None

    def join(self, name: str, task: Computation, columns: Columns, address: Address | None) -> Membership:
        """Learns a job, and tries to attach to its shared memory. Whatever job was served before is left."""
        if self._job is not None:
            self._job.left.set()
        segment = None
        if address is not None:
            with suppress(NotHere):
                segment = attach(address)
        data = columns.data() if isinstance(columns, Arriving) else Data(*(column.column() for column in columns))
        self._job = _Job(name, task, data, segment, threading.Event())
        return Membership(os.getpid(), ray.get_runtime_context().get_node_id(), segment is not None, versions())

    def serve(self, name: str, seat: int) -> None:
        """Computes what is ordered through shared memory until told to leave. Raises NotJoined."""
        job = self._joined(name)
        segment = job.segment
        assert segment is not None  # noqa: S101 - only who said that it reaches it is asked to
        _let_others_first()
        try:
            serve(segment, seat, job.task, job.data, job.left.is_set)
        finally:
            segment.close()

    def compute(self, name: str, params: Array, kind: Kind, step: int, shards: Sequence[int]) -> Answer:
        """Computes some shards with parameters that came as a Ray object, added as far as they are siblings.

        Raises NotJoined.
        """
        job = self._joined(name)
        blocks, took = carry_out(job.task, job.data, params, kind, step, dict.fromkeys(shards))
        return Answer(blocks, [took])

    def merge(self, shards: int, *parts: Answer) -> Answer:
        """Adds what the workers of this node computed, so that the node sends one vector where it can."""
        own = [Block(block.first, block.width, block.total.writable()) for part in parts for block in part.blocks]
        return Answer(merge(own, shards), [took for part in parts for took in part.took])

    @ray.method(concurrency_group="help")
    def help(self, work: Callable[[Any], Any], part: Any) -> Any:
        """Computes a part for somebody who has no job: see worker.passes. A job that is served goes on meanwhile."""
        return work(part)

    def leave(self, name: str) -> None:
        """Forgets a job, and ends `serve`, if that runs. A job that was joined since stays."""
        if self._job is not None and self._job.name == name:
            self._job.left.set()
            self._job = None

    def process(self) -> int:
        """The process id."""
        return os.getpid()

    def _joined(self, name: str) -> _Job:
        job = self._job
        if job is None or job.name != name:
            raise NotJoined(name)
        return job


def _let_others_first() -> None:
    """Has the thread that computes wait, when it is woken, until whoever has the processor goes to sleep.

    For that is the trainer, with orders yet to give: else the first worker to be woken takes its processor, and the
    next one hears of its work a millisecond later. Where there is no such policy, nothing changes.
    """
    with suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def keep_freed_memory() -> None:
    """Has the C library keep the memory that a step frees, for the next step.

    By default it gives arrays of this size back to the system at once, which then has to clear every page of them
    again: a fifth of a step's time with 512 rows of 784. The price is that the process stays as large as it ever was.
    Where the C library isn't glibc, nothing changes.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            mallopt(option, 1 << 30)
        mallopt(M_ARENA_MAX, 1)
