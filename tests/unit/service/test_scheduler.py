"""Whose turn it is: first come, first served, and nobody waits for ever."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.jobs.events import Queued, Running, Starting, StateChanged
from service.jobs.job import Job
from service.jobs.jobs import Jobs
from service.jobs.scheduler import AGING_SECONDS, Scheduler, Share, plan
from tests.unit.service.examples import NOON, jobs_in, spec
from tests.unit.service.examples import job as example
from tests.unit.service.stories import SUCCEEDED
from tests.unit.service.waiting import eventually


def made(name: str, workers: str, *, minutes: float = 0, priority: int = 0) -> Job:
    """A job that wants so many workers, given as "least-wanted-most", "least-wanted" or "wanted"."""
    least, wanted, most = (
        {1: "{0} {0} {0}", 2: "{0} {1} {1}", 3: "{0} {1} {2}"}[len(workers.split("-"))]
        .format(*workers.split("-"))
        .split()
    )
    of = spec(min_workers=int(least), workers=int(wanted), max_workers=int(most), shards=9, priority=priority)
    return replace(example(of=of, id=name), created=NOON + timedelta(minutes=minutes))


def queue(*workers: str) -> list[Job]:
    """Queued jobs called a, b, c, ... in the order in which they came."""
    return [made("abcdefghij"[place], wanted, minutes=place / 60) for place, wanted in enumerate(workers)]


@pytest.mark.parametrize(
    ("wanted", "held", "capacity", "starts", "reasons"),
    [
        ((), 0, 4, {}, {}),
        (("2",), 0, 4, {"a": 2}, {}),
        (("4",), 0, 4, {"a": 4}, {}),
        (("2", "2"), 0, 4, {"a": 2, "b": 2}, {}),
        (("1", "1", "1", "1"), 1, 4, {"a": 1, "b": 1, "c": 1}, {"d": "waits for 1 worker; 0 of 4 are free"}),
        (("3",), 2, 4, {}, {"a": "waits for 3 workers; 2 of 4 are free"}),
        (
            ("3", "1"),
            2,
            4,
            {},
            {"a": "waits for 3 workers; 2 of 4 are free", "b": "waits behind 1 job in the queue"},
        ),
        (
            ("1", "4", "1", "1"),
            0,
            4,
            {"a": 1},
            {
                "b": "waits for 4 workers; 3 of 4 are free",
                "c": "waits behind 1 job in the queue",
                "d": "waits behind 2 jobs in the queue",
            },
        ),
        (("5",), 0, 4, {}, {"a": "waits for 5 workers; the cluster has room for 4"}),
        (("1",), 4, 2, {}, {"a": "waits for 1 worker; 0 of 2 are free"}),
        (("1",), 0, 0, {}, {"a": "waits for 1 worker; the cluster has room for 0"}),
        # The fewest are enough to start; what is wanted is given as far as there is room.
        (("1-4",), 1, 4, {"a": 3}, {}),
        (("2-4",), 3, 4, {}, {"a": "waits for 2 workers; 1 of 4 are free"}),
        (("1-3", "1-3"), 0, 4, {"a": 3, "b": 1}, {}),
        (("1-9",), 0, 4, {"a": 4}, {}),
        # More than is wanted comes later, when nobody waits.
        (("1-2-9",), 0, 4, {"a": 2}, {}),
    ],
)
def test_who_starts(
    wanted: tuple[str, ...], held: int, capacity: int, starts: dict[str, int], reasons: dict[str, str]
) -> None:
    decided = plan(queue(*wanted), [], {"others": held}, capacity, NOON)
    assert (decided.starts, {job: wait.reason for job, wait in decided.waits.items()}) == (starts, reasons)
    assert decided.shares == {}


@pytest.mark.parametrize(
    ("running", "held", "waiting", "capacity", "shares"),
    [
        # Nobody waits: what is free goes to those that can use it, the first first.
        ([("a", "1-2-4")], {"a": 2}, (), 4, {"a": 4}),
        ([("a", "1-2-3"), ("b", "1-1-4")], {"a": 2, "b": 1}, (), 6, {"a": 3, "b": 3}),
        ([("a", "1-2-2")], {"a": 2}, (), 4, {"a": 2}),
        # One that began with fewer than it wanted.
        ([("a", "1-4")], {"a": 1}, (), 4, {"a": 4}),
        # A job that has ended but still holds some has none to give.
        ([("a", "1-2-9")], {"a": 2, "ended": 3}, (), 6, {"a": 3}),
        # Somebody waits: what is beyond what was wanted is given back, and no more.
        ([("a", "1-2-4")], {"a": 4}, ("2",), 4, {"a": 2}),
        ([("a", "1-2-4"), ("b", "1")], {"a": 3, "b": 1}, ("1",), 4, {"a": 2, "b": 1}),
        ([("a", "1-4")], {"a": 2}, ("3",), 4, {"a": 2}),
        ([("a", "1-4")], {"a": 4}, ("3",), 4, {"a": 4}),
        # The cluster has shrunk: nobody is given more, and nobody's are taken.
        ([("a", "1-2-4")], {"a": 3}, (), 2, {"a": 3}),
        # A job that starts now comes before those that would grow.
        ([("a", "1-2-4")], {"a": 2}, ("1",), 4, {"a": 3}),
    ],
)
def test_who_grows_and_who_gives_back(
    running: list[tuple[str, str]],
    held: dict[str, int],
    waiting: tuple[str, ...],
    capacity: int,
    shares: dict[str, int],
) -> None:
    queued = [made(f"q{place}", wanted) for place, wanted in enumerate(waiting)]
    assert plan(queued, [made(name, wanted) for name, wanted in running], held, capacity, NOON).shares == shares


def test_priority_comes_before_age_and_grows_with_it() -> None:
    jobs = [made("old", "4"), made("new", "4", minutes=1, priority=1), made("urgent", "4", minutes=2, priority=9)]

    def first(minutes: float) -> str:
        (start,) = plan(jobs, [], {}, 4, NOON + timedelta(minutes=minutes)).starts
        jobs[:] = [job for job in jobs if job.id != start]
        return start

    assert [first(3), first(3), first(3)] == ["urgent", "new", "old"]
    step = AGING_SECONDS / 60
    patient = [made("old", "4"), made("new", "4", minutes=2 * step, priority=1)]
    assert list(plan(patient, [], {}, 4, NOON + timedelta(minutes=2 * step)).starts) == ["old"]
    hurried = [made("old", "4"), made("new", "4", minutes=2 * step, priority=3)]
    assert list(plan(hurried, [], {}, 4, NOON + timedelta(minutes=2 * step)).starts) == ["new"]


_wanted = st.tuples(st.integers(1, 5), st.integers(0, 4), st.integers(0, 4)).map(
    lambda n: f"{n[0]}-{n[0] + n[1]}-{n[0] + n[1] + n[2]}"
)


@given(st.lists(_wanted, max_size=6), st.lists(st.tuples(_wanted, st.integers(1, 9)), max_size=4), st.integers(0, 20))
def test_nobody_gets_what_is_not_there(queued: list[str], running: list[tuple[str, int]], capacity: int) -> None:
    waiting = queue(*queued)
    jobs = [made(f"r{place}", wanted) for place, (wanted, _) in enumerate(running)]
    held = {job.id: has for job, (_, has) in zip(jobs, running, strict=True)}
    decided = plan(waiting, jobs, held, capacity, NOON)
    by_id = {job.id: job for job in [*waiting, *jobs]}
    assert set(decided.starts) | set(decided.waits) == {job.id for job in waiting}
    assert not set(decided.starts) & set(decided.waits)
    assert set(decided.shares) == set(held)
    for job_id, workers in decided.starts.items():
        assert by_id[job_id].spec.min_workers <= workers <= by_id[job_id].spec.workers
    for job_id, workers in decided.shares.items():
        of = by_id[job_id].spec
        assert workers <= max(held[job_id], of.max_workers)
        assert workers >= min(held[job_id], of.workers)
        blocked = any(by_id[waits].spec.min_workers <= capacity for waits in decided.waits)
        assert not (blocked and workers > held[job_id])
    given_out = sum(decided.starts.values()) + sum(decided.shares.values())
    assert given_out <= max(capacity, sum(held.values()))
    # First come, first served: all that start came before all that wait, but for those that can never start.
    possible = [job.id for job in waiting if job.spec.min_workers <= capacity]
    assert list(decided.starts) == possible[: len(decided.starts)]


@given(st.lists(st.tuples(_wanted, st.integers(-2, 2)), max_size=20), st.lists(st.integers(0, 30), max_size=100))
def test_nobody_starves(arrivals: list[tuple[str, int]], ends: list[int]) -> None:
    """Jobs keep coming, and those that run end in any order: everyone gets a turn, and those of a priority in order."""
    queued: list[Job] = []
    running: list[Job] = []
    held: dict[str, int] = {}
    started: list[Job] = []
    for step in range(3 * len(arrivals) + len(ends)):
        if step < len(arrivals):
            wanted, priority = arrivals[step]
            queued.append(made(f"{step:03}", wanted, minutes=step, priority=priority))
        elif running:
            del held[running.pop((ends[step % len(ends)] if ends else 0) % len(running)).id]
        decided = plan(queued, running, held, 5, NOON + timedelta(minutes=step))
        held |= decided.shares | decided.starts
        assert sum(held.values()) <= 5
        started += [job for job in queued if job.id in decided.starts]
        running += [job for job in queued if job.id in decided.starts]
        queued = [job for job in queued if job.id not in decided.starts]
    assert len(started) == len(arrivals)
    for priority in range(-2, 3):
        ids = [job.id for job in started if job.spec.priority == priority]
        assert ids == sorted(ids)


def test_a_job_of_low_priority_is_passed_by_newer_ones_for_a_bounded_time() -> None:
    """A hundred jobs a minute, all more important, each with the whole cluster."""
    low = made("low", "4")
    for minute in range(100):
        rivals = [made(f"{minute}", "4", minutes=minute, priority=3)]
        if "low" in plan([low, *rivals], [], {}, 4, NOON + timedelta(minutes=minute)).starts:
            assert minute == 3 * AGING_SECONDS / 60
            return
    pytest.fail("it starved")


@dataclass
class Runs:
    """Runs jobs until they are told to end, and notes who ran at the same time."""

    jobs: Jobs
    ends: dict[str, threading.Event] = field(default_factory=dict)
    shares: dict[str, Share] = field(default_factory=dict)
    follows: bool = True
    """Whether it gives and takes workers as it is told."""
    most_workers: int = 0

    def __call__(self, job_id: str, share: Share) -> None:
        self.shares[job_id] = share
        self.ends[job_id] = threading.Event()
        self.jobs.record(job_id, StateChanged(Starting()))
        self.jobs.record(job_id, StateChanged(Running()))
        self.most_workers = max(self.most_workers, sum(j.spec.workers for j in self.jobs.all() if j.is_at_work))
        deadline = time.monotonic() + 10
        while not self.ends[job_id].wait(0.005) and time.monotonic() < deadline:
            if self.follows and share.held != share.target:
                share.settle(share.target)
        self.jobs.record(job_id, StateChanged(SUCCEEDED))


@contextmanager
def scheduling(
    jobs: Jobs,
    run: Callable[[str, Share], None],
    capacity: Callable[[], int] = lambda: 4,
    want: Callable[[int], None] = lambda _workers: None,
) -> Iterator[Scheduler]:
    scheduler = Scheduler(jobs, capacity, run, want)
    scheduler.start()
    try:
        yield scheduler
    finally:
        for end in getattr(run, "ends", {}).values():
            end.set()
        scheduler.stop(10)


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    with jobs_in(tmp_path) as opened:
        yield opened


def create(jobs: Jobs, workers: int, most: int = 0) -> str:
    of = spec(workers=workers, min_workers=workers, max_workers=max(most, workers), shards=9)
    return jobs.create(of, 30, "", "").id


def test_a_cluster_that_grows_is_asked_for_what_all_jobs_could_use(jobs: Jobs) -> None:
    runs = Runs(jobs)
    asked: list[int] = []
    with scheduling(jobs, runs, lambda: min(asked[-1], 5) if asked else 0, asked.append):
        running = create(jobs, 2, most=4)
        eventually(lambda: running in runs.ends)
        assert asked[-1] == 4
        create(jobs, 3)
        eventually(lambda: asked[-1] == 7)
        runs.ends[running].set()
        eventually(lambda: asked[-1] == 3)


def test_jobs_run_at_once_as_far_as_there_is_room(jobs: Jobs) -> None:
    runs = Runs(jobs)
    with scheduling(jobs, runs) as scheduler:
        ids = [create(jobs, workers) for workers in (2, 2, 3, 1)]
        eventually(lambda: set(ids[:2]) == set(runs.ends) and scheduler.reason(ids[3]) != "")
        assert scheduler.reason(ids[2]) == "waits for 3 workers; 0 of 4 are free"
        assert scheduler.reason(ids[3]) == "waits behind 1 job in the queue"
        runs.ends[ids[0]].set()
        eventually(lambda: scheduler.reason(ids[2]) == "waits for 3 workers; 2 of 4 are free")
        runs.ends[ids[1]].set()
        eventually(lambda: set(ids) == set(runs.ends))
        for job_id in ids:
            runs.ends[job_id].set()
            eventually(lambda job_id=job_id: jobs.get(job_id).has_ended)  # type: ignore[misc]
            assert scheduler.reason(job_id) == ""
    assert runs.most_workers == 4


def test_a_cancelled_job_in_the_queue_never_runs_and_lets_others_pass(jobs: Jobs) -> None:
    runs = Runs(jobs)
    with scheduling(jobs, runs):
        first, large, small = (create(jobs, workers) for workers in (2, 4, 1))
        eventually(lambda: first in runs.ends)
        jobs.cancel(large)
        eventually(lambda: small in runs.ends)
        assert large not in runs.ends


def test_workers_are_held_until_the_run_returns(jobs: Jobs) -> None:
    """A cancelled job has ended, but its trainer may still be in a step."""
    runs = Runs(jobs)
    with scheduling(jobs, runs) as scheduler:
        first, second = (create(jobs, 4) for _ in range(2))
        eventually(lambda: first in runs.ends and scheduler.reason(second) != "")
        jobs.cancel(first)
        assert scheduler.reason(second) == "waits for 4 workers; 0 of 4 are free"
        assert second not in runs.ends
        runs.ends[first].set()
        eventually(lambda: second in runs.ends)


def test_a_job_grows_while_nobody_waits_and_gives_back_when_somebody_does(jobs: Jobs) -> None:
    runs = Runs(jobs)
    with scheduling(jobs, runs) as scheduler:
        first = create(jobs, 2, most=9)
        eventually(lambda: first in runs.shares and runs.shares[first].held == 4)
        second = create(jobs, 2, most=2)
        eventually(lambda: second in runs.ends)
        assert runs.shares[first].target == 2
        assert scheduler.reason(second) == ""
        runs.ends[second].set()
        eventually(lambda: runs.shares[first].held == 4)


def test_what_was_asked_back_is_not_given_away_before_it_is_there(jobs: Jobs) -> None:
    runs = Runs(jobs)
    with scheduling(jobs, runs) as scheduler:
        first = create(jobs, 2, most=9)
        eventually(lambda: first in runs.shares and runs.shares[first].held == 4)
        runs.follows = False
        second = create(jobs, 2)
        eventually(lambda: runs.shares[first].target == 2 and scheduler.reason(second) != "")
        assert scheduler.reason(second) == "waits for 2 workers; 0 of 4 are free"
        time.sleep(0.05)
        assert second not in runs.ends
        runs.shares[first].settle(2)
        eventually(lambda: second in runs.ends)


def test_a_paused_job_waits_for_nothing_and_is_queued_again_when_resumed(jobs: Jobs) -> None:
    runs = Runs(jobs)
    with scheduling(jobs, runs) as scheduler:
        first, second = (create(jobs, 4) for _ in range(2))
        eventually(lambda: first in runs.ends and scheduler.reason(second) != "")
        jobs.pause(second)
        eventually(lambda: scheduler.reason(second) == "")
        runs.ends[first].set()
        eventually(lambda: jobs.get(first).has_ended)
        assert second not in runs.ends
        jobs.resume(second)
        eventually(lambda: second in runs.ends)


def test_what_goes_wrong_in_one_job_stops_no_other(jobs: Jobs) -> None:
    runs = Runs(jobs)

    def run(job_id: str, share: Share) -> None:
        if jobs.get(job_id).spec.workers == 3:
            raise RuntimeError("it broke")
        runs(job_id, share)

    with scheduling(jobs, run):
        create(jobs, 3)
        well = create(jobs, 1)
        eventually(lambda: well in runs.ends)
        runs.ends[well].set()


def test_a_cluster_that_does_not_answer_is_asked_again(jobs: Jobs) -> None:
    asked: list[int] = []

    def capacity() -> int:
        asked.append(1)
        if len(asked) < 3:
            raise ConnectionError("no cluster")
        return 4

    runs = Runs(jobs)
    with scheduling(jobs, runs, capacity):
        first = create(jobs, 1)
        eventually(lambda: len(asked) > 0)
        while first not in runs.ends and len(asked) < 9:
            seen = len(asked)
            create(jobs, 9)  # any change has it look again
            eventually(lambda seen=seen: len(asked) > seen)  # type: ignore[misc]
        eventually(lambda: first in runs.ends)


def test_nothing_starts_after_it_stopped(jobs: Jobs) -> None:
    runs = Runs(jobs)
    with scheduling(jobs, runs):
        pass
    create(jobs, 1)
    assert runs.ends == {}
    assert isinstance(jobs.all()[0].state, Queued)
