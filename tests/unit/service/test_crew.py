"""How many workers share a step follows from how long steps take, and from nothing else."""

from collections.abc import Callable, Mapping

import pytest

from service.cluster.crew import AGAIN_SECONDS, HOLD_SECONDS, SHORT_SECONDS, TRIAL_STEPS, Crew

SHORT = SHORT_SECONDS / 4


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the time on that a crew sees."""
    now = [100.0]
    monkeypatch.setattr("service.cluster.crew.time.monotonic", lambda: now[0])

    def move(seconds: float) -> None:
        now[0] += seconds

    return move


def settle(crew: Crew, seconds: Mapping[int, float], steps: int = 10 * TRIAL_STEPS) -> list[int]:
    """Takes steps that last as long as is said for a number of workers; who shared them."""
    sizes = []
    for _ in range(steps):
        sizes.append(crew.size)
        crew.took(seconds[crew.size])
    return sizes


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({4: SHORT, 2: SHORT / 2, 1: SHORT / 3}, 1),
        ({4: SHORT, 2: SHORT / 2, 1: SHORT * 2}, 2),
        ({4: SHORT, 2: SHORT * 2, 1: SHORT / 9}, 4),
    ],
    ids=["one", "half", "all"],
)
def test_the_fastest_number_of_workers_is_kept(seconds: Mapping[int, float], best: int) -> None:
    crew = Crew(4)
    assert set(settle(crew, seconds)[3 * TRIAL_STEPS :]) == {best}


@pytest.mark.usefixtures("clock")
def test_steps_begin_with_all_workers_and_long_ones_stay_with_them() -> None:
    assert set(settle(Crew(2), {2: 1.1 * SHORT_SECONDS})) == {2}
    assert set(settle(Crew(2), {2: SHORT, 1: SHORT / 2}, TRIAL_STEPS)) == {2}


@pytest.mark.usefixtures("clock")
def test_a_few_steps_that_took_long_decide_nothing() -> None:
    crew = Crew(2)
    for step in range(2 * TRIAL_STEPS):
        crew.took(1.0 if step % 5 == 0 else SHORT * crew.size)
    assert crew.size == 1


def test_what_was_found_is_tried_anew_after_a_while_and_changed_once_it_is_found_twice(
    clock: Callable[[float], None],
) -> None:
    crew = Crew(2)
    settle(crew, {2: SHORT, 1: SHORT / 2})
    assert crew.size == 1
    clock(HOLD_SECONDS)
    settle(crew, {2: SHORT, 1: SHORT * 2})
    assert crew.size == 1
    clock(AGAIN_SECONDS)
    sizes = settle(crew, {2: SHORT, 1: SHORT * 2})
    assert crew.size == 2
    assert sizes.count(1) <= TRIAL_STEPS + 1


def test_one_trial_that_others_disturbed_changes_nothing(clock: Callable[[float], None]) -> None:
    crew = Crew(2)
    usual = {2: SHORT, 1: SHORT / 2}
    settle(crew, usual)
    for wait in (HOLD_SECONDS, HOLD_SECONDS):
        clock(wait)
        settle(crew, {2: SHORT, 1: SHORT * 2})  # the processors were somebody else's
        assert crew.size == 1
        clock(AGAIN_SECONDS)
        settle(crew, usual)
        assert crew.size == 1


def test_a_worker_alone_has_nobody_to_share_with(clock: Callable[[float], None]) -> None:
    crew = Crew(1)
    for _ in range(3):
        assert set(settle(crew, {1: SHORT})) == {1}
        clock(HOLD_SECONDS)
