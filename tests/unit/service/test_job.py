"""The one function in which a job changes: every state with every event."""

from itertools import product

import pytest
from hypothesis import given

from service.jobs.job import (
    STATES,
    CheckpointSaved,
    Event,
    IllegalEvent,
    Job,
    Progress,
    Queued,
    Running,
    Starting,
    State,
    StateChanged,
    WorkerLost,
    advance,
    is_repeated,
)
from tests.unit.service.examples import NOON, SPEC, job
from tests.unit.service.stories import CHANGES, EPOCH, HAPPENINGS, PATHS, WAITING, job_in, stories

ENDS = ("SUCCEEDED", "FAILED", "CANCELLED")

MAY_FOLLOW = {
    "QUEUED": {"STARTING", "FAILED", "CANCELLED"},
    "STARTING": {"QUEUED", "RUNNING", "FAILED", "CANCELLED"},
    "RUNNING": {"QUEUED", "WAITING_FOR_WORKERS", "SUCCEEDED", "FAILED", "CANCELLED"},
    "WAITING_FOR_WORKERS": {"QUEUED", "RUNNING", "FAILED", "CANCELLED"},
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
    assert (made.epoch, made.checkpoint_step, made.worker_failures) == (EPOCH, 3, 2)
    assert (made.started, made.ended, made.last_event) == (NOON, None, 8)


def test_it_started_when_it_first_ran() -> None:
    again = [StateChanged(Queued()), StateChanged(Starting())]
    made = job(StateChanged(Starting()), StateChanged(Running()), *again)
    later = NOON.replace(hour=13)
    assert advance(made, StateChanged(Running()), later).started == NOON


@pytest.mark.parametrize(
    ("event", "repeated"),
    [
        (EPOCH, True),
        (EPOCH.__class__(2, 8, 0.5, 0.7, 0.6, None, 0.01, 1.5), False),
        (CheckpointSaved(3), True),
        (CheckpointSaved(2), True),
        (CheckpointSaved(4), False),
        (WorkerLost(1, 2, "its process ended"), False),
        (StateChanged(Running()), False),
    ],
    ids=str,
)
def test_events_of_steps_taken_again_are_repeated(event: Event, repeated: bool) -> None:
    made = job(StateChanged(Starting()), StateChanged(Running()), *HAPPENINGS)
    assert is_repeated(made, event) == repeated
    assert not is_repeated(job(), event)


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


@given(stories())
def test_no_event_is_left_out_of_the_count(story: list[tuple[object, Event]]) -> None:
    assert job(*(event for _, event in story)).last_event == 1 + len(story)
