"""Filters and orders of a list of jobs: what they mean, and what is said of those that are none."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from chainrule.v1.training_service_pb2 import ListTrainingJobsRequest
from service.api.listing import parse_listing
from service.errors import InvalidArgument
from service.jobs.job import Job
from tests.unit.service.examples import NOON, job
from tests.unit.service.stories import job_in

RUNNING, QUEUED = job_in("RUNNING"), job_in("QUEUED")
BLUE = replace(RUNNING, labels={"team": "blue", "a.b/c": "x y"}, display_name='say "hi"', created_by="ann@example.com")


def has(text: str, of: Job = BLUE) -> bool:
    return parse_listing(ListTrainingJobsRequest(filter=text)).has(of)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "state=RUNNING",
        "state = RUNNING AND labels.team = blue",
        'state!=QUEUED AND labels.a.b/c="x y"AND created_by = "ann@example.com"',
        r'display_name = "say \"hi\""',
        'labels.nothing = ""',
        "labels.team != red AND labels.other != red",
    ],
)
def test_what_holds(text: str) -> None:
    assert has(text)


@pytest.mark.parametrize(
    "text", ["state=QUEUED", "state=RUNNING AND labels.team=red", "labels.TEAM=blue", 'labels.other="blue"']
)
def test_what_does_not_hold(text: str) -> None:
    assert not has(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("state", "ends at position 6, where there must be = or !="),
        ("state =", "ends at position 8, where there must be a value"),
        ("state = RUNING", "has 'RUNING' at position 9, where there must be a state: QUEUED, STARTING"),
        (
            "epoch = 3",
            "has 'epoch' at position 1, where there must be a field: state, display_name, created_by or labels.",
        ),
        ("state=RUNNING labels.a=b", "has 'labels.a' at position 15, where there must be AND"),
        ("state=RUNNING OR state=QUEUED", "has 'OR' at position 15, where there must be AND"),
        ("state=RUNNING AND", "ends at position 18, where there must be a field"),
        ("state > RUNNING", "has '>' at position 7"),
        ('labels.a = "b', "has '\"' at position 12"),
        ("= =", "has '=' at position 1, where there must be a field"),
        ("(state=RUNNING)", "has '(' at position 1"),
    ],
)
def test_what_is_no_filter_is_told_with_its_place(text: str, said: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        has(text)
    (violation,) = refused.value.violations
    assert (violation.field, said in violation.description) == ("filter", True), violation


@given(st.text(max_size=40) | st.text('state=RUNNING AND"\\ ', max_size=40))
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    with suppress(InvalidArgument):
        assert has(text) in (True, False)


@pytest.mark.parametrize("field", ["filter", "order_by"])
def test_very_long_ones_are_refused(field: str) -> None:
    with pytest.raises(InvalidArgument, match=f"{field}: has 100,000 characters; must have at most 1,000"):
        parse_listing(json_format.ParseDict({field: "x" * 100_000}, ListTrainingJobsRequest()))


JOBS = [
    replace(
        job(spec=replace(RUNNING.spec, priority=priority)), id=f"j{number}", created=NOON + timedelta(minutes=number)
    )
    for number, priority in enumerate([0, 5, -3, 5, 0])
]


def ordered(text: str, jobs: Sequence[Job] = JOBS) -> list[str]:
    listing = parse_listing(ListTrainingJobsRequest(order_by=text))
    places = sorted(listing.place(each) for each in jobs)
    assert all(before != after for before, after in pairwise(places))
    return [str(place[-1]) for place in places]


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("", "43210"),
        ("create_time desc", "43210"),
        ("create_time", "01234"),
        ("create_time asc", "01234"),
        ("priority desc", "31402"),
        ("priority", "24031"),
        (" priority  desc , create_time ", "13042"),
    ],
)
def test_orders(text: str, order: str) -> None:
    assert ordered(text) == [f"j{number}" for number in order]


@pytest.mark.parametrize("text", ["name", "priority up", "priority,", "priority desc desc", "priority, priority desc"])
def test_what_is_no_order_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="order_by: has "):
        ordered(text)
