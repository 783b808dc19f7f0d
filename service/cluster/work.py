"""An order under way, at one worker or several, and what has gone into orders so far."""

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import ObjectLostError, RayActorError, RayError

from service.cluster.members import Member
from service.cluster.workers import Cause, computed, packed
from worker.actor import Answer, NotJoined
from worker.blocks import Block


@dataclass(eq=False)
class Work:
    """An order under way: some shards, at one member through shared memory, or at the members of a node by calls."""

    call: int
    shards: frozenset[int]
    members: tuple[Member, ...]
    slots: frozenset[int] = frozenset()
    answer: "Future[Answer] | None" = None
    parts: tuple[Any, ...] = ()
    since: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._memberships = [member.membership for member in self.members]

    def answered(self) -> tuple[list[Block], bytes] | None:
        """The blocks that it brought, and a Computed of each member, packed; None while it is under way.

        Raises RayActorError or ObjectLostError.
        """
        if self.answer is None:
            blocks = self.members[0].blocks()
            return None if blocks is None else (blocks, self.members[0].account())
        if not self.answer.done():
            return None
        answer = self.answer.result()
        orders = (computed(member.number, took) for member, took in zip(self.members, answer.took, strict=True))
        return list(map(_own, answer.blocks)), packed(*orders)

    def waits_for(self) -> Sequence[Member]:
        """The members that have not done their part yet."""
        if not self.parts:
            return self.members
        done, _ = ray.wait(list(self.parts), num_returns=len(self.parts), timeout=0, fetch_local=False)
        return [member for member, part in zip(self.members, self.parts, strict=True) if part not in done]

    def lost(self) -> Sequence[Member]:
        """The members whose processes ended; not those that only worked beside them, or have joined again since."""
        failed = [_has_failed(part) for part in self.parts] or [True]
        return [member for member, has in zip(self.members, failed, strict=True) if has and self.is_of(member)]

    def is_of(self, member: Member) -> bool:
        """Whether a member is still the one that it was when it was given this."""
        return member.membership is self._memberships[self.members.index(member)]


@dataclass
class Spending:
    """What goes into questions, while it does."""

    split: float = 0.0
    gather: float = 0.0
    computed: bytes = b""
    late: bytes = b""
    exchanged: int = 0

    def take_in(self, blocks: Sequence[Block], computed: bytes, *, is_late: bool) -> None:
        """Counts an answer."""
        if is_late:
            self.late += computed
        else:
            self.computed += computed
        for block in blocks:
            self.exchanged += block.total.vector.nbytes
            for table in block.total.tables:
                self.exchanged += table.rows.nbytes + table.values.nbytes


def why_lost(error: Exception) -> tuple[str, Cause]:
    """The reason and the cause of a loss that showed in an error."""
    if isinstance(error, ObjectLostError):
        return "its answer was lost on the way", "unreachable"
    return "its process ended", "process_ended"


def _own(block: Block) -> Block:
    """A block that can be written, as those in shared memory can: what comes out of the object store is read-only."""
    return Block(block.first, block.width, block.total.writable())


def _has_failed(ref: Any) -> bool:
    """Whether a call's worker was lost, rather than one whose result it was to be added to."""
    try:
        ray.get(ref, timeout=0)
    except (RayActorError, ObjectLostError, NotJoined):
        return True
    except RayError:
        return False
    return False
