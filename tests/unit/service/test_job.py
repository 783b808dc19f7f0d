"""The one function in which a job changes: every state with every event."""

from dataclasses import replace
from datetime import datetime
from itertools import product

import pytest
from hypothesis import given

from service.jobs.events import (
    STATES,
    CheckpointSaved,
    EpochCompleted,
    Event,
    Paused,
    Progress,
    Queued,
    RolledBack,
    Running,
    Starting,
    State,
    StateChanged,
    WorkerLost,
)
from service.jobs.health import Trouble
from service.jobs.job import IllegalEvent, Job, advance, is_no_news
from tests.unit.service.examples import NOON, SPEC, job
from tests.unit.service.stories import (
    CHANGES,
    DEAD,
    EPOCH,
    HAPPENINGS,
    HEALTH,
    PATHS,
    ROLLED_BACK,
    WAITING,
    job_in,
    stories,
)

ENDS = ("SUCCEEDED", "FAILED", "CANCELLED")

MAY_FOLLOW = {
    # Paused and resumed before its trainer heard of it, a job may still come to its end from the queue.
    "QUEUED": {"STARTING", "PAUSED", "SUCCEEDED", "FAILED", "CANCELLED"},
    "STARTING": {"QUEUED", "RUNNING", "PAUSED", "FAILED", "CANCELLED"},
    "RUNNING": {"QUEUED", "WAITING_FOR_WORKERS", "PAUSED", "SUCCEEDED", "FAILED", "CANCELLED"},
    "WAITING_FOR_WORKERS": {"QUEUED", "RUNNING", "PAUSED", "FAILED", "CANCELLED"},
    "PAUSED": {"QUEUED", "SUCCEEDED", "FAILED", "CANCELLED"},
    "SUCCEEDED": set(),
    "FAILED": set(),
    "CANCELLED": set(),
}


def test_the_tables_know_every_state() -> None:
    assert set(STATES) == set(MAY_FOLLOW) == set(PATHS) == {state.kind for state in CHANGES}


@pytest.mark.parametrize(("before", "change"), list(product(STATES, CHANGES)), ids=str)
def test_a_state_follows_another_or_is_refused(before: str, change: State) -> None:
    was = job_in(before)
    if change.kind in MAY_FOLLOW[before]:
        now = advance(was, StateChanged(change), NOON)
        assert (now.state, now.last_event) == (change, was.last_event + 1)
        assert now.story == (*was.story, change.kind)
        assert now.has_ended == (change.kind in ENDS) == (now.ended == NOON)
    else:
        with pytest.raises(IllegalEvent) as refused:
            advance(was, StateChanged(change), NOON)
        for told in (was.name, f"is {before}", " -> ".join(was.story), change.kind):
            assert told in str(refused.value)


@pytest.mark.parametrize(("state", "event"), list(product(STATES, HAPPENINGS)), ids=str)
def test_other_events_happen_to_a_job_until_it_ends(state: str, event: Event) -> None:
    was = job_in(state)
    if state in ENDS:
        with pytest.raises(IllegalEvent, match=was.name):
            advance(was, event, NOON)
    else:
        now = advance(was, event, NOON)
        assert (now.state, now.last_event) == (was.state, was.last_event + 1)


@pytest.mark.parametrize("event", [*(StateChanged(s) for s in CHANGES if not isinstance(s, Queued))], ids=str)
def test_a_job_begins_in_the_queue(event: Event) -> None:
    with pytest.raises(IllegalEvent):
        advance(Job("job-a", "", SPEC, 30, NOON), event, NOON)


def test_what_events_leave() -> None:
    made = job(StateChanged(Starting()), StateChanged(Running()), *HAPPENINGS, WorkerLost(0, 4, "again"))
    assert (made.epoch, made.checkpoint_step, made.worker_failures, made.rolled_back) == (EPOCH, 3, 2, ROLLED_BACK)
    assert (made.health, made.diagnoses) == (HEALTH, {Trouble.DEAD_UNITS: DEAD})
    assert (made.started, made.ended, made.last_event) == (NOON, None, 13)


def test_it_started_when_it_first_ran() -> None:
    again = [StateChanged(Queued()), StateChanged(Starting())]
    made = job(StateChanged(Starting()), StateChanged(Running()), *again)
    later = NOON.replace(hour=13)
    assert advance(made, StateChanged(Running()), later).started == NOON


@pytest.mark.parametrize(
    ("event", "known"),
    [
        (EPOCH, True),
        (replace(EPOCH, epoch=2, step=8), False),
        (CheckpointSaved(3), True),
        (CheckpointSaved(2), True),
        (CheckpointSaved(4), False),
        (WorkerLost(1, 2, "its process ended"), False),
        (ROLLED_BACK, True),
        (replace(ROLLED_BACK, learning_rate=0.01), True),
        (replace(ROLLED_BACK, learning_rate=0.0025), False),
        (StateChanged(Running()), False),
        (HEALTH, True),
        (replace(HEALTH, step=5), False),
    ],
    ids=str,
)
def test_events_of_steps_taken_again_are_no_news(event: Event, known: bool) -> None:
    made = job(StateChanged(Starting()), StateChanged(Running()), *HAPPENINGS)
    assert is_no_news(made, event) == known
    assert not is_no_news(job(StateChanged(Starting())), event)


TOLD = {"STARTING", "RUNNING", "WAITING_FOR_WORKERS", "QUEUED"}
"""What the one who runs a job may still tell of its state, after the job was taken from it."""


@pytest.mark.parametrize(("state", "change"), list(product(STATES, CHANGES)), ids=str)
def test_what_an_old_trainer_tells_does_not_wake_a_paused_job(state: str, change: State) -> None:
    no_news = {"PAUSED": {*TOLD, "PAUSED"}, "QUEUED": TOLD - {"STARTING"}}
    assert is_no_news(job_in(state), StateChanged(change)) == (change.kind in no_news.get(state, set()))


def test_a_job_that_was_not_queued_yet_has_that_as_news() -> None:
    assert not is_no_news(Job("job-a", "", SPEC, 30, NOON), StateChanged(Queued()))


@given(stories())
def test_what_is_told_twice_is_told_once(story: list[tuple[datetime, Event]]) -> None:
    """A service that asks again for what it didn't get to confirm changes nothing by it."""
    made = job()
    for time, event in story:
        made = advance(made, event, time)
        if isinstance(event, EpochCompleted | CheckpointSaved | RolledBack):
            assert is_no_news(made, event)


def test_a_long_story_is_told_from_its_end() -> None:
    around = [StateChanged(Starting()), StateChanged(Running()), StateChanged(WAITING), StateChanged(Queued())]
    made = job(*around * 50)
    assert len(made.story) == 20
    assert made.story[-4:] == ("STARTING", "RUNNING", "WAITING_FOR_WORKERS", "QUEUED")
    assert made.last_event == 201


@pytest.mark.parametrize(("state", "workers"), [(state, 2 if state == "RUNNING" else 0) for state in STATES])
def test_workers_take_part_in_steps_while_it_runs(state: str, workers: int) -> None:
    assert job_in(state).workers(Progress(step=5, workers=2)) == workers


def test_steps_are_those_known_live_or_from_events() -> None:
    made = job(StateChanged(Starting()), StateChanged(Running()), *HAPPENINGS)
    assert [made.steps(Progress(step)) for step in (0, 4, 9)] == [4, 4, 9]
    assert made.total_steps == 12


def test_only_who_holds_workers_is_at_work() -> None:
    assert [state for state in STATES if job_in(state).is_at_work] == ["STARTING", "RUNNING", "WAITING_FOR_WORKERS"]
    resumed = job(*(StateChanged(state) for state in (Starting(), Running(), Paused(), Queued())))
    assert (resumed.state, resumed.is_at_work, resumed.started) == (Queued(), False, NOON)


@given(stories())
def test_no_event_is_left_out_of_the_count(story: list[tuple[object, Event]]) -> None:
    assert job(*(event for _, event in story)).last_event == 1 + len(story)
