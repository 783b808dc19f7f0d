"""All jobs: created once, ended once, and the same after a restart, whatever was done."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import AlreadyExists, FailedPrecondition, NotFound
from service.jobs.events import (
    Cancelled,
    CheckpointSaved,
    EpochCompleted,
    Event,
    Failed,
    Paused,
    Progress,
    Queued,
    Running,
    Starting,
    StateChanged,
)
from service.jobs.job import IllegalEvent, Job
from service.jobs.jobs import Jobs
from tests.unit.service.examples import SPEC, jobs_in, spec
from tests.unit.service.stories import EPOCH, PATHS, ROLLED_BACK, SUCCEEDED, WAITING

RUNNING = (StateChanged(Starting()), StateChanged(Running()))
ACTIVE = ("QUEUED", "STARTING", "RUNNING", "WAITING_FOR_WORKERS", "PAUSED")
"""The states in which a job may be cancelled, and not deleted; in the others it is the other way round."""


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    with jobs_in(tmp_path) as opened:
        yield opened


def create(jobs: Jobs, *events: Event, request_id: str = "") -> Job:
    made = jobs.create(SPEC, 30, "a job", request_id)
    for event in events:
        assert jobs.record(made.id, event)
    return jobs.get(made.id)


def numbers(jobs: Jobs, job_id: str) -> list[int]:
    return [record.number for record in jobs.events(job_id, 0, -1)]


def test_a_job_begins_in_the_queue(jobs: Jobs) -> None:
    made = create(jobs)
    assert (made.state, made.spec, made.rows, made.display_name) == (Queued(), SPEC, 30, "a job")
    assert [record.event for record in jobs.events(made.id, 0, 9)] == [StateChanged(Queued())]
    assert jobs.has(made.id)


def test_jobs_are_in_order_and_have_names_of_their_own(jobs: Jobs) -> None:
    made = [create(jobs) for _ in range(20)]
    assert jobs.all() == made
    assert len({job.id for job in made}) == 20


def test_a_request_that_is_repeated_makes_one_job(jobs: Jobs, tmp_path: Path) -> None:
    made = create(jobs, *RUNNING, request_id="r-1")
    assert create(jobs, request_id="r-1") == made
    with jobs_in(tmp_path) as restarted:
        assert create(restarted, request_id="r-1") == made
        assert restarted.requested(SPEC, "a job", "r-1") == made
        assert len(restarted.all()) == 1


@pytest.mark.parametrize(("changed", "name"), [(spec(seed=2), "a job"), (SPEC, "another job")])
def test_a_request_id_is_for_one_job(jobs: Jobs, changed: object, name: str) -> None:
    made = create(jobs, request_id="r-1")
    with pytest.raises(AlreadyExists, match=made.name) as refused:
        jobs.create(changed, 30, name, "r-1")  # type: ignore[arg-type]
    assert refused.value.reason == "REQUEST_ID_REUSED"
    assert jobs.all() == [made]


def test_without_a_request_id_every_request_makes_a_job(jobs: Jobs) -> None:
    assert create(jobs).id != create(jobs).id
    assert jobs.requested(SPEC, "a job", "") is None


def test_a_request_id_is_free_again_once_its_job_is_deleted(jobs: Jobs) -> None:
    made = create(jobs, StateChanged(Cancelled()), request_id="r-1")
    jobs.delete(made.id)
    assert create(jobs, request_id="r-1").id != made.id


@pytest.mark.parametrize("state", PATHS)
def test_what_may_be_cancelled_and_what_deleted(jobs: Jobs, state: str) -> None:
    made = create(jobs, *map(StateChanged, PATHS[state]))
    refused, allowed = (jobs.delete, jobs.cancel) if state in ACTIVE else (jobs.cancel, jobs.delete)
    with pytest.raises(FailedPrecondition, match=f"{made.name}.*{state}"):
        refused(made.id)
    assert jobs.get(made.id) == made
    allowed(made.id)
    if state in ACTIVE:
        assert jobs.get(made.id).state == Cancelled()
        assert numbers(jobs, made.id) == list(range(1, made.last_event + 2))
    else:
        assert not jobs.has(made.id)
        assert numbers(jobs, made.id) == []


def test_what_is_not_there(jobs: Jobs) -> None:
    for call in (jobs.get, jobs.cancel, jobs.pause, jobs.resume, jobs.delete):
        with pytest.raises(NotFound, match="there is no job jobs/nobody"):
            call("nobody")
    assert not jobs.record("nobody", StateChanged(Starting()))
    jobs.set_progress("nobody", Progress(1))
    assert jobs.progress("nobody") == Progress()


@pytest.mark.parametrize("event", [EPOCH, CheckpointSaved(9), StateChanged(SUCCEEDED)], ids=str)
def test_who_runs_a_job_that_was_cancelled_learns_it(jobs: Jobs, event: Event) -> None:
    made = jobs.cancel(create(jobs, *RUNNING).id)
    assert not jobs.record(made.id, event)
    assert jobs.get(made.id) == made
    assert numbers(jobs, made.id) == [1, 2, 3, 4]


def test_an_illegal_event_changes_nothing(jobs: Jobs) -> None:
    made = create(jobs, *RUNNING)
    with pytest.raises(IllegalEvent):
        jobs.record(made.id, StateChanged(Starting()))
    assert jobs.get(made.id) == made
    assert numbers(jobs, made.id) == [1, 2, 3]


def test_a_batch_is_taken_whole_or_not_at_all(jobs: Jobs) -> None:
    """And those who watch hear of it once."""
    made = create(jobs, *RUNNING)
    told: list[str] = []
    jobs.listen(told.append)
    with pytest.raises(IllegalEvent):
        jobs.record(made.id, EPOCH, CheckpointSaved(4), StateChanged(Starting()))
    assert (jobs.get(made.id), numbers(jobs, made.id), told) == (made, [1, 2, 3], [])
    assert jobs.record(made.id, EPOCH, EPOCH, CheckpointSaved(4), CheckpointSaved(2), StateChanged(WAITING))
    assert (numbers(jobs, made.id), told) == ([1, 2, 3, 4, 5, 6], [made.id])
    assert jobs.get(made.id).epoch == EPOCH


@pytest.mark.parametrize("state", PATHS)
def test_what_may_be_paused_and_what_resumed(jobs: Jobs, state: str) -> None:
    made = create(jobs, *map(StateChanged, PATHS[state]))
    for call, allowed, after in (
        (jobs.resume, state == "PAUSED", Queued()),
        (jobs.pause, state in ACTIVE, Paused()),
    ):
        if allowed:
            assert call(made.id).state == after
        else:
            with pytest.raises(FailedPrecondition, match=f"{made.name} is {state}"):
                call(made.id)


def test_a_paused_job_hears_nothing_of_its_old_trainer_but_how_it_ended(jobs: Jobs) -> None:
    made = create(jobs, *RUNNING)
    paused = jobs.pause(made.id)
    for state in (Running(), WAITING, Queued("its trainer was lost"), Starting()):
        assert jobs.record(made.id, StateChanged(state))
        assert jobs.get(made.id) == paused
    assert jobs.record(made.id, EPOCH, CheckpointSaved(4))
    assert jobs.resume(made.id).state == Queued()
    assert jobs.record(made.id, StateChanged(Running()))
    assert jobs.get(made.id).state == Queued()
    assert jobs.record(made.id, StateChanged(SUCCEEDED))
    assert jobs.get(made.id).has_ended


def test_a_window_that_the_service_chose_does_not_make_a_repeated_request_another_one(jobs: Jobs) -> None:
    made = jobs.create(spec(shuffle_window=7), 30, "a job", "r-1")
    assert jobs.requested(spec(shuffle_window=None), "a job", "r-1") == made
    with pytest.raises(AlreadyExists):
        jobs.requested(spec(shuffle_window=8), "a job", "r-1")


def test_steps_taken_again_are_no_news(jobs: Jobs) -> None:
    made = create(jobs, *RUNNING, EPOCH, CheckpointSaved(5))
    told: list[str] = []
    jobs.listen(told.append)
    assert jobs.record(made.id, EPOCH)
    assert jobs.record(made.id, CheckpointSaved(4))
    assert (jobs.get(made.id), told) == (made, [])
    assert jobs.record(made.id, EpochCompleted(2, 8, 0.5, None, None, None, 0.01, 1.0))
    assert (numbers(jobs, made.id), told) == ([1, 2, 3, 4, 5, 6], [made.id])


def test_listeners_hear_of_every_change(jobs: Jobs) -> None:
    told: list[str] = []
    jobs.listen(told.append)
    made = create(jobs)
    jobs.record(made.id, RUNNING[0])
    jobs.cancel(made.id)
    jobs.delete(made.id)
    assert told == [made.id] * 4


def test_after_a_restart_what_was_under_way_is_queued(jobs: Jobs, tmp_path: Path) -> None:
    for path in PATHS.values():
        create(jobs, *map(StateChanged, path))
    with jobs_in(tmp_path) as restarted:
        restarted.requeue_interrupted()
        kinds = [job.state.kind for job in restarted.all()]
        assert kinds == ["QUEUED", "QUEUED", "QUEUED", "QUEUED", "PAUSED", "SUCCEEDED", "FAILED", "CANCELLED"]
        assert [job.last_event for job in restarted.all()] == [1, 3, 4, 5, 4, 4, 2, 2]
        states = [job.state for job in restarted.all()[:4]]
        assert [state.reason != "" for state in states if isinstance(state, Queued)] == [False, True, True, True]
        before = restarted.all()
        restarted.requeue_interrupted()
        assert restarted.all() == before


def test_progress_goes_with_the_job(jobs: Jobs) -> None:
    made = create(jobs, *RUNNING)
    jobs.set_progress(made.id, Progress(3, 0.5, 10, 2))
    assert jobs.progress(made.id) == Progress(3, 0.5, 10, 2)
    jobs.delete(jobs.cancel(made.id).id)
    assert jobs.progress(made.id) == Progress()


def test_who_listens_hears_of_the_first_step_alone(jobs: Jobs) -> None:
    made = create(jobs, *RUNNING)
    heard: list[str] = []
    jobs.listen(heard.append)
    for step in (0, 3, 4):
        jobs.set_progress(made.id, Progress(step))
    assert heard == [made.id]


OPERATIONS: list[Callable[[Jobs, str], object]] = [
    lambda jobs, _: create(jobs),
    lambda jobs, _: create(jobs, request_id="r"),
    lambda jobs, job: jobs.record(job, StateChanged(Starting())),
    lambda jobs, job: jobs.record(job, StateChanged(Running())),
    lambda jobs, job: jobs.record(job, EPOCH),
    lambda jobs, job: jobs.record(job, CheckpointSaved(7)),
    lambda jobs, job: jobs.record(job, StateChanged(SUCCEEDED)),
    lambda jobs, job: jobs.record(job, StateChanged(Failed("INTERNAL", "it broke"))),
    lambda jobs, job: jobs.record(job, EPOCH, CheckpointSaved(9), ROLLED_BACK),
    lambda jobs, job: jobs.pause(job),
    lambda jobs, job: jobs.resume(job),
    lambda jobs, job: jobs.cancel(job),
    lambda jobs, job: jobs.delete(job),
    lambda jobs, _: jobs.requeue_interrupted(),
]


@settings(max_examples=20)
@given(st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 3)), max_size=15))
def test_after_any_operation_a_restart_finds_the_same(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[Callable[[Jobs, str], object], int]]
) -> None:
    directory = tmp_path_factory.mktemp("jobs")
    with jobs_in(directory) as jobs:
        for operation, place in operations:
            ids = [job.id for job in jobs.all()] or ["nobody"]
            with suppress(IllegalEvent, FailedPrecondition, NotFound, AlreadyExists):
                operation(jobs, ids[place % len(ids)])
            with jobs_in(directory) as restarted:
                assert restarted.all() == jobs.all()
                for job in jobs.all():
                    assert numbers(restarted, job.id) == list(range(1, job.last_event + 1))
