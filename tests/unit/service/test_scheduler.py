"""Whose turn it is: first come, first served, and nobody waits for ever."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.jobs.job import Job, Queued, Running, Starting, StateChanged
from service.jobs.jobs import Jobs
from service.jobs.scheduler import Scheduler, plan
from tests.unit.service.examples import job as example
from tests.unit.service.examples import jobs_in, spec
from tests.unit.service.stories import SUCCEEDED
from tests.unit.service.waiting import eventually


def queue(*wanted: int) -> list[Job]:
    """Queued jobs called a, b, c, ... that want so many workers."""
    return [example(of=spec(workers=workers, shards=9), id="abcdefghij"[place]) for place, workers in enumerate(wanted)]


@pytest.mark.parametrize(
    ("wanted", "held", "capacity", "starts", "reasons"),
    [
        ((), 0, 4, "", {}),
        ((2,), 0, 4, "a", {}),
        ((4,), 0, 4, "a", {}),
        ((2, 2), 0, 4, "ab", {}),
        ((1, 1, 1, 1), 1, 4, "abc", {"d": "waits for 1 workers; 0 of 4 are free"}),
        ((3,), 2, 4, "", {"a": "waits for 3 workers; 2 of 4 are free"}),
        ((3, 1), 2, 4, "", {"a": "waits for 3 workers; 2 of 4 are free", "b": "waits behind 1 older job in the queue"}),
        (
            (1, 4, 1, 1),
            0,
            4,
            "a",
            {
                "b": "waits for 4 workers; 3 of 4 are free",
                "c": "waits behind 1 older job in the queue",
                "d": "waits behind 2 older jobs in the queue",
            },
        ),
        ((5,), 0, 4, "", {"a": "waits for 5 workers; the cluster has room for 4"}),
        ((1,), 4, 2, "", {"a": "waits for 1 workers; 0 of 2 are free"}),
        ((1,), 0, 0, "", {"a": "waits for 1 workers; the cluster has room for 0"}),
    ],
)
def test_plan(wanted: tuple[int, ...], held: int, capacity: int, starts: str, reasons: dict[str, str]) -> None:
    decided = plan(queue(*wanted), held, capacity)
    assert ("".join(decided.starts), decided.reasons) == (starts, reasons)


@given(st.lists(st.integers(1, 9), max_size=10), st.integers(0, 9), st.integers(0, 9))
def test_the_oldest_start_as_far_as_there_is_room(wanted: list[int], held: int, capacity: int) -> None:
    jobs = queue(*wanted)
    decided = plan(jobs, held, capacity)
    started = len(decided.starts)
    assert list(decided.starts) == [job.id for job in jobs[:started]]
    assert list(decided.reasons) == [job.id for job in jobs[started:]]
    if started:
        assert held + sum(wanted[:started]) <= capacity
    if started < len(jobs):
        assert held + sum(wanted[: started + 1]) > capacity


@given(st.lists(st.integers(1, 4), max_size=30), st.lists(st.integers(0, 30), max_size=200))
def test_nobody_starves(arrivals: list[int], ends: list[int]) -> None:
    """Jobs keep coming, and those that run end in any order: they start in the order in which they came."""
    queued: list[Job] = []
    running: list[Job] = []
    started: list[int] = []
    for step in range(len(arrivals) + len(ends) + 2 * len(arrivals)):
        if step < len(arrivals):
            queued.append(example(of=spec(workers=arrivals[step], shards=9), id=str(step)))
        elif running:
            running.pop((ends[step % len(ends)] if ends else 0) % len(running))
        decided = plan(queued, sum(job.spec.workers for job in running), 4)
        running += [job for job in queued if job.id in decided.starts]
        queued = [job for job in queued if job.id not in decided.starts]
        started += map(int, decided.starts)
    assert started == list(range(len(arrivals)))


@dataclass
class Runs:
    """Runs jobs until they are told to end, and notes who ran at the same time."""

    jobs: Jobs
    ends: dict[str, threading.Event] = field(default_factory=dict)
    most_workers: int = 0

    def __call__(self, job_id: str) -> None:
        self.ends[job_id] = threading.Event()
        self.jobs.record(job_id, StateChanged(Starting()))
        self.jobs.record(job_id, StateChanged(Running()))
        self.most_workers = max(self.most_workers, sum(j.spec.workers for j in self.jobs.all() if j.is_at_work))
        self.ends[job_id].wait(10)
        self.jobs.record(job_id, StateChanged(SUCCEEDED))


@contextmanager
def scheduling(jobs: Jobs, run: Callable[[str], None], capacity: Callable[[], int] = lambda: 4) -> Iterator[Scheduler]:
    scheduler = Scheduler(jobs, capacity, run)
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


def create(jobs: Jobs, workers: int) -> str:
    return jobs.create(spec(workers=workers, shards=9), 30, "", "").id


def test_jobs_run_at_once_as_far_as_there_is_room(jobs: Jobs) -> None:
    runs = Runs(jobs)
    with scheduling(jobs, runs) as scheduler:
        ids = [create(jobs, workers) for workers in (2, 2, 3, 1)]
        eventually(lambda: set(ids[:2]) == set(runs.ends) and scheduler.reason(ids[3]) != "")
        assert scheduler.reason(ids[2]) == "waits for 3 workers; 0 of 4 are free"
        assert scheduler.reason(ids[3]) == "waits behind 1 older job in the queue"
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


def test_what_goes_wrong_in_one_job_stops_no_other(jobs: Jobs) -> None:
    runs = Runs(jobs)

    def run(job_id: str) -> None:
        if jobs.get(job_id).spec.workers == 3:
            raise RuntimeError("it broke")
        runs(job_id)

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
