"""The workers of one job: who computes which shard, and what becomes of the shards of one that is lost or slow.

Every shard is a pure function, so that anyone may compute it, twice if need be: the first answer counts, and both are
the same bits. Nothing here depends on which worker it was.
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
import structlog
from ray.exceptions import ObjectLostError, RayActorError, RayError, RayTaskError

from service.cluster.bells import Bell, SharedBell, ThreadBell
from service.cluster.crew import SHORT_SECONDS, Crew
from service.cluster.members import Member
from service.cluster.work import Spending, Work, why_lost
from service.cluster.workers import Cause, Change, Joined, Lost, Spent, TooFewWorkers, WorkersError
from worker import health
from worker.actor import Columns, NotJoined
from worker.arrays import Array
from worker.blocks import Block
from worker.scores import sizes
from worker.segment import Kind, Layout, Segment, create, sweep
from worker.task import Computation

LOOK_SECONDS = 0.05
"""How often to look whether a worker that has an order is still alive."""

PROCESSORS = os.cpu_count() or 1

FIRST_SECONDS = 5.0
"""What an order is taken to usually last before there was any."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Patience:
    """How long workers and trainers may take."""

    slow_factor: float = 5.0
    slow_seconds: float = 0.5
    """An order is slow that takes longer than both: so many times the usual, and so long. Then it is given twice."""
    answer_seconds: float = 300.0
    """A worker that takes longer over an order counts as lost."""
    join_seconds: float = 30.0
    """One that takes longer to join is ended, so that Ray starts another in its place."""
    trainer_seconds: float = 60.0
    """A trainer that takes longer to answer the service counts as lost."""


class RayWorkers:
    """Implements service.cluster.workers.Workers with actors that are lent to the job."""

    def __init__(
        self,
        task: Computation,
        columns: Columns,
        bounds: tuple[int, int],
        prefix: str,
        patience: Patience,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        """`bounds` are the fewest and the most workers; the names of shared memory begin with `prefix`.

        So that no message of one job is taken for one of another, no two have the same prefix.
        """
        self._job = prefix
        self._task = task
        self._columns = columns
        self._fewest = bounds[0]
        self._patience = patience
        self._everything = frozenset(range(task.shards.shards))
        self._in_order: Sequence[int] = range(task.shards.shards)
        self._members: dict[int, Member] = {}
        self._left: dict[int, Member] = {}
        """Who was let go, by the number that is free once nothing of its process reaches into its seat."""
        self._lent: dict[int, Any] = {}
        self._settled: dict[int, Any] | None = None
        """What is lent, once all of it has joined and everyone else has left. Then there is nobody to admit."""
        self._crew = Crew(1)
        """How many of those who are settled share a step, if all share memory."""
        self._plans: dict[int, list[tuple[Member, dict[int, int]]]] = {}
        """Who gets which shards with which slots, by how many share a step: the same until the workers change."""
        self._lock = threading.Lock()
        self._under_way: list[Work] = []
        self._changes: list[Change] = []
        self._call = 0
        self._spent = Spending()
        self._usual: dict[Kind, float] = {}
        self._answered: set[int] = set()
        """Slots whose vectors are the caller's until the next call."""
        self._segment = _open_segment(task, bounds[1], prefix, dtype)
        self._bell: Bell = SharedBell(self._segment) if self._segment else ThreadBell()
        self._params: Array = self._segment.params if self._segment else np.empty(task.network.size, dtype)

    @property
    def params(self) -> Array:
        return self._params

    def lend(self, actors: dict[int, Any]) -> None:
        """Says which actors work for this job from the next step on, by their number. May be called from any thread."""
        with self._lock:
            self._lent = dict(actors)
        self._bell.ring()

    def gradients(self, step: int, *, look: bool = False) -> Sequence[Block]:
        return self._compute(Kind.LOOK if look else Kind.GRADIENTS, step)

    def evaluate(self) -> Sequence[Block]:
        return self._compute(Kind.EVALUATE, 0)

    def spent(self) -> Spent:
        spent, self._spent = self._spent, Spending()
        return Spent(spent.split, spent.gather, spent.computed, spent.exchanged, spent.late)

    def ready(self) -> int:
        return sum(member.membership is not None for member in list(self._members.values()))

    def shared(self) -> int:
        return sum(member.is_shared for member in list(self._members.values()))

    def changes(self) -> Sequence[Change]:
        changes, self._changes = self._changes, []
        return changes

    def wait(self, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while True:
            self._admit()
            if self.ready() >= self._fewest:
                return True
            if time.monotonic() >= deadline:
                return False
            self._bell.wait(min(LOOK_SECONDS, deadline - time.monotonic()))

    def close(self) -> None:
        """Lets all workers go, and removes the shared memory."""
        for member in self._members.values():
            member.leave()
        self._members.clear()
        if self._segment:
            sweep(self._segment.address.name.removeprefix("/"))
            self._segment.close()

    def _compute(self, kind: Kind, step: int) -> list[Block]:
        """Has every shard computed by someone, and returns what they brought.

        An error in the numerics (RayTaskError) is let through: every worker would make it.
        """
        self._admit()
        if self.ready() < self._fewest:
            raise TooFewWorkers
        self._call += 1
        self._answered.clear()
        began = time.monotonic()
        results: list[Block] = []
        covered: set[int] = set()
        missing = self._in_order
        while True:
            if missing:
                before = time.perf_counter()
                self._give(kind, step, missing)
                self._spent.split += time.perf_counter() - before
            # Where steps are short, and a processor is left to the trainer, it looks out for the answers.
            is_short = self._usual.get(kind, FIRST_SECONDS) < SHORT_SECONDS
            self._bell.wait(LOOK_SECONDS, looking=is_short and self._crew.size < PROCESSORS)
            taken_in = time.perf_counter()
            for work, blocks in self._collect():
                if work.call == self._call and not work.shards & covered:
                    results += blocks
                    covered |= work.shards
            if covered == self._everything:
                break
            self._admit()
            if self.ready() == 0:
                raise TooFewWorkers
            times = Counter(shard for work in self._under_way if work.call == self._call for shard in work.shards)
            wanted = 2 if self._is_slow(kind, time.monotonic() - began) else 1
            missing = [shard for shard in self._in_order if shard not in covered and times[shard] < wanted]
        taken = time.monotonic() - began
        self._learn(kind, taken)
        if kind is Kind.GRADIENTS and self._plans:
            self._crew.took(taken)
        self._spent.gather += time.perf_counter() - taken_in
        return results

    def _give(self, kind: Kind, step: int, shards: Sequence[int]) -> None:
        """Shares out some shards among the idle members: neighbours to the same one, since they add up there."""
        is_settled = shards is self._in_order and not self._under_way and self._settled is not None
        # Held-out rows are many, and everybody is seen to be alive when they are asked for.
        most = self._crew.size if is_settled and kind is not Kind.EVALUATE and self._plans else len(self._members)
        if is_settled and (known := self._plans.get(most)):
            for member, slots in known:
                self._order(member, kind, step, slots)
            return
        plan: list[tuple[Member, dict[int, int]]] = []
        busy = {member.number for work in self._under_way for member in work.waits_for()}
        idle = [member for member in self._members.values() if member.membership and member.number not in busy]
        idle.sort(key=lambda member: (not member.is_shared, member.node, member.number))
        del idle[most:]
        params: Any = None
        calls: dict[str, list[tuple[Member, Any, tuple[int, ...]]]] = {}
        for place, member in enumerate(idle):
            part = tuple(shards[len(shards) * place // len(idle) : len(shards) * (place + 1) // len(idle)])
            if not part:
                continue
            if member.is_shared:
                if free := self._free_slots(len(part)):
                    plan.append((member, dict(zip(part, free, strict=True))))
                    self._order(member, kind, step, plan[-1][1])
            else:
                params = ray.put(self._params) if params is None else params
                self._spent.exchanged += self._params.nbytes
                ref = member.actor.compute.remote(self._job, params, kind, step, part)
                calls.setdefault(member.node, []).append((member, ref, part))
        for group in calls.values():
            members, refs, parts = zip(*group, strict=True)
            # The first of a node adds up what all of them computed, so that a node sends one vector where it can.
            answer = members[0].actor.merge.remote(len(self._everything), *refs) if len(refs) > 1 else refs[0]
            everything = frozenset(shard for part in parts for shard in part)
            future = members[0].watched(answer)
            self._under_way.append(Work(self._call, everything, members, answer=future, parts=refs))
        if is_settled and sum(len(slots) for _, slots in plan) == len(shards):
            self._plans[most] = plan

    def _order(self, member: Member, kind: Kind, step: int, slots: dict[int, int]) -> None:
        """Gives a member shards, each with a slot, through shared memory."""
        member.order(kind, step, slots)
        self._spent.exchanged += self._params.nbytes
        self._under_way.append(Work(self._call, frozenset(slots), (member,), frozenset(slots.values())))

    def _free_slots(self, count: int) -> list[int]:
        """Slots that nobody may write into, and whose content nobody needs; none if there are not enough."""
        assert self._segment is not None  # noqa: S101 - only for members that share memory
        held = self._answered.union(*(work.slots for work in self._under_way))
        # One that was lost with an order may still be alive, and write.
        lost = [member for member in self._members.values() if member.membership is None]
        held = held.union(*(member.slots() for member in (*lost, *self._left.values())))
        free = [slot for slot in range(self._segment.layout.slots) if slot not in held][:count]
        extra = [slot for slot in free if slot >= self._segment.layout.shards]
        return free if len(free) == count and (not extra or self._segment.reserve(extra)) else []

    def _collect(self) -> list[tuple[Work, list[Block]]]:
        """What has been finished since, whatever call it was for. Members that turn out to be lost are forgotten.

        Raises RayTaskError if the call under way made one.
        """
        finished = []
        for work in list(self._under_way):
            try:
                answer = work.answered()
            except (RayActorError, ObjectLostError, NotJoined) as error:
                self._under_way.remove(work)
                for member in work.lost():
                    self._lose(member, *why_lost(error))
                continue
            except RayTaskError:
                self._under_way.remove(work)
                self._unsettle()
                for member in filter(work.is_of, work.members):
                    member.lose()
                if work.call == self._call:
                    raise
                continue
            if answer is not None:
                self._under_way.remove(work)
                self._answered |= work.slots
                blocks, computed = answer
                self._spent.take_in(blocks, computed, is_late=work.call != self._call)
                finished.append((work, blocks))
            elif time.monotonic() - work.since > self._patience.answer_seconds:
                self._under_way.remove(work)
                for member in filter(work.is_of, work.waits_for() or work.members[:1]):
                    reason = f"did not answer within {self._patience.answer_seconds:g} seconds"
                    self._lose(member, reason, "too_slow", kill=True)
        return finished

    def _lose(self, member: Member, reason: str, cause: Cause, *, kill: bool = False) -> None:
        """Has a member join again."""
        self._unsettle()
        self._changes.append(Lost(member.number, reason, cause))
        member.lose(kill=kill)

    def _admit(self) -> None:
        """Takes in the members that have joined, and lets those go that are lent to another job now."""
        with self._lock:
            lent = self._lent
        if lent is self._settled:
            return
        self._unsettle()
        for number, actor in lent.items():
            if number not in self._members and (number not in self._left or self._left[number].has_gone()):
                join_seconds = self._patience.join_seconds
                self._members[number] = Member(self._job, number, actor, join_seconds, self._bell.ring)
        for number, member in list(self._members.items()):
            if number not in lent or lent[number]._actor_id != member.actor._actor_id:
                if not any(member in work.members for work in self._under_way):
                    self._left[number] = self._members.pop(number)
                    self._left[number].leave()
            elif member.membership is None and member.is_late():
                member.restart()
                reason = f"did not join within {member.join_seconds:g} seconds"
                self._changes.append(Lost(number, reason, "not_joined"))
            elif member.membership is None:
                try:
                    if member.join(self._task, self._columns, self._segment):
                        self._changes.append(Joined(number, "shared_memory" if member.is_shared else "ray_objects"))
                except RayError as error:
                    # Ray starts a worker again however often its process ends, but not if its constructor fails.
                    _log.error("worker can't join", worker=number, error=str(error))
                    raise WorkersError("a worker can't be started; the service's log says why") from error
        if self._members.keys() == lent.keys() and all(member.membership for member in self._members.values()):
            self._settled = lent
            self._crew = Crew(len(lent))

    def _unsettle(self) -> None:
        """The workers change: what was planned for them holds no longer."""
        self._settled = None
        self._plans.clear()

    def _is_slow(self, kind: Kind, taken: float) -> bool:
        usual = self._usual.get(kind, FIRST_SECONDS)
        return taken > max(self._patience.slow_factor * usual, self._patience.slow_seconds)

    def _learn(self, kind: Kind, taken: float) -> None:
        self._usual[kind] = 0.9 * self._usual.get(kind, taken) + 0.1 * taken


def _open_segment(task: Computation, seats: int, prefix: str, dtype: npt.DTypeLike) -> Segment | None:
    """The job's shared memory; None where there is no room for it."""
    scores = sizes(task.training_scores), sizes(task.scores)
    kind = np.dtype(dtype).name
    watched = health.size(task.network)
    layout = Layout(task.network.size, task.shards.shards, seats, *scores, kind, tables=task.rooms, health=watched)
    try:
        return create(prefix, layout)
    except OSError as error:
        _log.warning("no room in shared memory; parameters go by Ray objects", bytes=layout.size, error=str(error))
        return None
