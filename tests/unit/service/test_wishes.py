"""A learning rate that is changed on the way: the changes are part of the story, and the story gives the bits."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.jobs.events import LearningRateChanged, RateAsked, RolledBack
from service.jobs.spec import JobSpec, OnDivergence
from service.training.optimizers import Adam
from service.training.pace import Pace
from service.training.schedules import ExponentialDecay, Schedule
from service.training.trainer import Policy, Stopped
from service.training.wishes import Wishes
from tests.unit.service.examples import spec
from tests.unit.service.test_rolling_back import NUMBERS, ROLLS
from tests.unit.service.training_run import ALWAYS, BITS, NEVER, STEPS, Crash, Run, in_memory

RATES = (0.5, 0.001, 0.02)


def wishing(
    wishes: Wishes, at: Mapping[int, RateAsked], then: Callable[[int], None] = lambda _: None
) -> Callable[[int], None]:
    """Asks for rates after steps."""

    def at_step(reached: int) -> None:
        wishes.rate = at.get(reached, wishes.rate)
        then(reached)

    return at_step


def changes(run: Run) -> list[LearningRateChanged]:
    return [event for event in run.events if isinstance(event, LearningRateChanged)]


def undisturbed(told: list[LearningRateChanged], of: JobSpec, run_of: Callable[..., Run]) -> bytes:
    """What a run comes to in which the same rates are asked for right before the same steps."""
    last = {change.step: change for change in told}  # of two before one step, only the later one shows
    at = {change.step: RateAsked(change.asked, change.learning_rate) for change in last.values()}
    with in_memory() as directory:
        wishes = Wishes(rate=at.get(0))
        run = run_of(Path(directory), of=of, wishes=wishes, at_step=wishing(wishes, at))
        bits = run.train()
        assert changes(run) == list(last.values())
        return bits


def test_a_rate_holds_from_the_next_step_on(tmp_path: Path) -> None:
    wishes = Wishes()
    run = Run(tmp_path, wishes=wishes, at_step=wishing(wishes, {5: RateAsked(7, 0.5)}))
    assert run.train() != BITS
    assert changes(run) == [LearningRateChanged(5, 0.5, 7)]
    before = run.progress[0].learning_rate
    assert [progress.learning_rate for progress in run.progress] == [before] * 5 + [0.5] * (STEPS - 5)
    assert [epoch.learning_rate for epoch in run.epochs] == [before, 0.5, 0.5]


def test_a_rate_for_a_job_that_has_not_begun_holds_from_its_first_step(tmp_path: Path) -> None:
    run = Run(tmp_path, wishes=Wishes(rate=RateAsked(2, 0.02)))
    of = spec(learning_rate=0.02)
    with in_memory() as directory:
        assert run.train() == Run(Path(directory), of=of).train()
    assert changes(run) == [LearningRateChanged(0, 0.02, 2)]


def test_a_schedule_goes_on_from_the_new_rate() -> None:
    schedule = Schedule(ExponentialDecay(0.5))
    of = spec(learning_rate=1.0, schedule=schedule)
    changed = Pace(of, 4, (LearningRateChanged(5, 8.0, 2),))
    as_it_was = Pace(of, 4)
    for step in range(STEPS):
        assert changed.rate(step) == as_it_was.rate(step) * (8.0 if step >= 5 else 1.0)


@settings(deadline=None, max_examples=15)
@given(
    wished=st.dictionaries(st.integers(0, STEPS - 1), st.sampled_from(RATES), max_size=3),
    ends=st.lists(st.tuples(st.integers(1, STEPS), st.booleans(), st.booleans()), max_size=6),
    policy=st.sampled_from([NEVER, ALWAYS]),
)
def test_whatever_crashes_or_stops_the_changes_that_were_told_give_the_bits(
    wished: dict[int, float], ends: list[tuple[int, bool, bool]], policy: Policy
) -> None:
    """The service hears of what happened at once, or of nothing before the crash; the newest wish it always knows."""
    of = spec(optimizer=Adam())
    at = {step: RateAsked(number, wished[step]) for number, step in enumerate(sorted(wished), start=2)}
    known: dict[int, LearningRateChanged] = {}
    asked: RateAsked | None = at.get(0)
    with in_memory() as directory:
        for crash, stops, acknowledges in (*ends, (STEPS + 1, False, True)):
            wishes = Wishes(tuple(known.values()), asked)

            def crashes(reached: int, crash: int = crash, stops: bool = stops) -> None:
                if reached == crash and not stops:
                    raise Crash

            # A wish is made once; a trainer that takes the same steps again starts with it.
            later = {step: wish for step, wish in at.items() if asked is None or wish.number > asked.number}
            run = Run(
                Path(directory),
                policy,
                of=of,
                wishes=wishes,
                at_step=wishing(wishes, later, crashes),
                stop_after=crash if stops else None,
                acknowledges=acknowledges,
            )
            bits = b""
            with suppress(Crash, Stopped):
                bits = run.train()
            asked = wishes.rate
            if acknowledges:
                known |= {change.asked: change for change in changes(run)}
            if bits and acknowledges:
                break
        else:
            raise AssertionError("it never ended")
    told = sorted(known.values(), key=lambda change: change.asked)
    assert bits == undisturbed(told, of, Run)


def test_a_change_is_on_the_disk_before_a_step_is_taken_with_it(tmp_path: Path) -> None:
    """So the next trainer knows of it, even if the service never heard."""
    wishes = Wishes()

    def crashes(reached: int) -> None:
        if reached == 8:
            raise Crash

    lost = Run(tmp_path, wishes=wishes, at_step=wishing(wishes, {5: RateAsked(7, 0.5)}, crashes), acknowledges=False)
    with pytest.raises(Crash):
        lost.train()
    following = Run(tmp_path, wishes=Wishes(rate=RateAsked(7, 0.5)))
    bits = following.train()
    assert changes(following) == [LearningRateChanged(5, 0.5, 7)]
    assert bits == undisturbed(changes(following), spec(), Run)


def test_a_job_that_rolls_back_takes_it_at_the_start_of_an_epoch(tmp_path: Path) -> None:
    assert ROLLS.on_divergence is OnDivergence.ROLLBACK
    of, wishes = replace(ROLLS, learning_rate=1e-3), Wishes()
    at = {1: RateAsked(3, 300.0)}
    run = Run(tmp_path, of=of, data=NUMBERS, wishes=wishes, at_step=wishing(wishes, at))
    bits = run.train()
    assert changes(run) == [LearningRateChanged(4, 300.0, 3)]
    back = [event for event in run.events if isinstance(event, RolledBack)]
    assert back
    assert [event.learning_rate for event in back] == [300.0 / 2**n for n in range(1, len(back) + 1)]
    assert all(event.step >= 4 for event in back)
    assert np.isfinite(np.frombuffer(bits, np.float32)).all()
    with in_memory() as directory:
        crashed = Run(
            Path(directory), of=of, data=NUMBERS, wishes=(again := Wishes()), at_step=wishing(again, at, _crash_at_nine)
        )
        with pytest.raises(Crash):
            crashed.train()
        rest = Run(Path(directory), of=of, data=NUMBERS, wishes=Wishes(tuple(changes(crashed)), again.rate))
        assert rest.train() == bits


def _crash_at_nine(reached: int) -> None:
    if reached == 9:
        raise Crash
