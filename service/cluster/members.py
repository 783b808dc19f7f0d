"""One worker of a job, seen from the trainer: on its way, ready, or lost and on its way again.

A member reaches the parameters through shared memory if it can; else they are sent to it as Ray objects. Whichever it
is was found out by trying, when it joined.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import ray
from ray.exceptions import RayActorError

from service.cluster.workers import WorkersError
from worker.actor import Columns, Membership
from worker.blocks import Block
from worker.exchange import Seat
from worker.segment import Kind, Segment
from worker.task import Computation
from worker.versions import SAME, versions


class Member:
    """A Ray actor that works for this job."""

    def __init__(self, job: str, number: int, actor: Any, join_seconds: float, wake: Callable[[], None]) -> None:
        """`job` is what workers call it by. `wake` is called, from any thread, when the member may have changed."""
        self.number = number
        self.actor = actor
        self._job = job
        self.membership: Membership | None = None
        """What it said when it joined; None until then, and again once it is lost."""
        self.join_seconds = join_seconds
        self._wake = wake
        self._seat: Seat | None = None
        self._slots: dict[int, int] = {}
        self._joining: Future[Membership] | None = None
        self._join_began = 0.0
        self._serving: Future[None] | None = None

    @property
    def is_shared(self) -> bool:
        """Whether it works through shared memory."""
        return self._seat is not None

    @property
    def node(self) -> str:
        """Where it runs, once it has joined."""
        return self.membership.node if self.membership else ""

    def slots(self) -> set[int]:
        """The slots that its process may still write into."""
        return set() if self.has_gone() else set(self._slots.values())

    def has_gone(self) -> bool:
        """Whether nothing of its process reaches into its seat any more."""
        return self._serving is None or self._serving.done()

    def join(self, task: Computation, columns: Columns, segment: Segment | None) -> bool:
        """Goes on with joining; returns True at the moment at which the member has joined.

        Raises RayError if it can't, and WorkersError if it would compute other bits.

        A process that was lost must be known to have ended before the next one takes its seat.
        """
        if self._joining is None:
            if self.has_gone():
                # Retried, the call waits for the process that takes the place of one that ended.
                call = self.actor.join.options(max_task_retries=-1)
                address = segment.address if segment else None
                self._joining = self.watched(call.remote(self._job, task, columns, address))
                self._join_began = time.monotonic()
            return False
        if not self._joining.done():
            return False
        joining, self._joining = self._joining, None
        membership = joining.result()
        if membership.versions != versions():
            here, there = versions(), membership.versions or "older versions"
            raise WorkersError(f"a worker has {there}, and the coordinator {here}; {SAME}")
        self.membership = membership
        if membership.shared and segment is not None:
            self._seat = Seat(segment, self.number)
            self._slots = {}
            self._serving = self.watched(self.actor.serve.remote(self._job, self.number))
        return True

    def is_late(self) -> bool:
        """Whether it takes too long to join: it may have got stuck while it was idle."""
        joins = self._joining is not None and not self._joining.done()
        return joins and time.monotonic() - self._join_began > self.join_seconds

    def restart(self) -> None:
        """Ends the process of one that is late, so that Ray starts another, which joins in its place."""
        ray.kill(self.actor, no_restart=False)
        self._join_began = time.monotonic()

    def order(self, kind: Kind, step: int, slots: dict[int, int]) -> None:
        """Has it compute some shards through shared memory, each with a slot to write it into."""
        assert self._seat is not None  # noqa: S101 - only for one that shares memory
        self._slots = slots
        self._seat.order(kind, step, slots)

    def blocks(self) -> list[Block] | None:
        """What the order brought, or None while it is open.

        Raises RayActorError if the worker is lost, RayTaskError if it met an error.
        """
        assert self._seat is not None  # noqa: S101 - only for one that shares memory
        assert self._serving is not None  # noqa: S101
        if self._seat.is_finished():
            return self._seat.blocks()
        if self._serving.done():
            self._serving.result()
        if self._serving.done() or self._seat.is_dead():
            raise RayActorError
        return None

    def account(self) -> bytes:
        """What the order took that is finished: a Computed, packed."""
        assert self._seat is not None  # noqa: S101 - only for one that shares memory
        return self._seat.account()

    def lose(self, *, kill: bool = False) -> None:
        """Forgets that it had joined, so that it joins again."""
        if kill:
            ray.kill(self.actor, no_restart=False)
        self._close_seat()
        self.membership = None

    def leave(self) -> None:
        """Lets the worker go, to be lent to another job."""
        if self._seat is not None:
            self._seat.leave()
        self._close_seat()
        self.actor.leave.remote(self._job)

    def watched(self, ref: Any) -> "Future[Any]":
        """A future that wakes the trainer when it is done."""
        future: Future[Any] = ref.future()
        future.add_done_callback(lambda _: self._wake())
        return future

    def _close_seat(self) -> None:
        if self._seat is not None:
            self._seat.close()
            self._seat = None
