"""Which jobs are kept."""

from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from service.jobs.events import Cancelled, Queued
from service.jobs.job import Job
from service.retention import KEEP_ALL, Keep, surplus
from tests.unit.service.examples import NOON, job


@st.composite
def histories(draw: st.DrawFn) -> list[Job]:
    """Jobs that ended up to 100 seconds before noon, or haven't."""
    ages = draw(st.lists(st.none() | st.integers(0, 100), max_size=12))
    return [
        replace(job(), id=f"job-{number}", state=Queued())
        if age is None
        else replace(job(), id=f"job-{number}", state=Cancelled(), ended=NOON - timedelta(seconds=age))
        for number, age in enumerate(ages)
    ]


@given(histories(), st.none() | st.integers(0, 100), st.none() | st.integers(0, 12))
def test_what_is_kept_is_what_was_asked_for(jobs: list[Job], seconds: int | None, most: int | None) -> None:
    doomed = surplus(jobs, Keep(seconds, most), NOON)
    kept = [made for made in jobs if made not in doomed and made.has_ended]
    assert all(made.has_ended for made in doomed)
    if most is not None:
        assert len(kept) <= most
    ages = {made.id: (NOON - made.ended).total_seconds() for made in jobs if made.ended}
    if seconds is not None:
        assert all(ages[made.id] <= seconds for made in kept)
    for made in doomed:  # each for one of both reasons, and never an older one kept instead
        newer = sum(ages[other] < ages[made.id] for other in ages)
        equal = sum(ages[other] == ages[made.id] for other in ages)
        assert (most is not None and newer + equal > most) or (seconds is not None and ages[made.id] > seconds)
        assert all(ages[other.id] <= ages[made.id] for other in kept)


@given(histories())
def test_by_default_all_are_kept(jobs: list[Job]) -> None:
    assert surplus(jobs, KEEP_ALL, NOON) == []
