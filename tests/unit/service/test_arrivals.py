"""Mini-batches between a client, a trainer and workers, without any of them."""

import threading
import time
from dataclasses import replace
from itertools import pairwise

import pytest

from service.jobs.spec import Online
from service.training.arrivals import MOST_UNANSWERED, Answers, Arrivals, Taken, TrainerGone
from service.training.standing import is_told
from tests.unit.service.examples import SPEC


def taken(step: int) -> tuple[Taken, ...]:
    """The newest steps, as a trainer tells of them."""
    return tuple(Taken(number, 1.0, 0.5) for number in range(max(1, step + 1 - MOST_UNANSWERED), step + 1))


def begun() -> Arrivals:
    arrivals = Arrivals()
    arrivals.tell((), 0, 0)
    return arrivals


def test_nothing_is_known_before_the_trainer_has_begun() -> None:
    arrivals = Arrivals()
    assert arrivals.answers(-1, 0.01) is None
    arrivals.tell((), 3, 3)
    assert arrivals.answers(-1, 10.0) == Answers(3, 3, ())


def test_who_waits_is_woken() -> None:
    arrivals = begun()

    def come() -> None:
        arrivals.put(0, "batch")
        arrivals.tell(taken(1), 1, 0)

    began = time.monotonic()
    threading.Timer(0.05, come).start()
    assert arrivals.wait(0, 10.0)
    assert arrivals.answers(0, 10.0) == Answers(1, 0, taken(1))
    assert time.monotonic() - began < 5.0


def test_a_batch_is_there_until_no_worker_can_want_it() -> None:
    arrivals = begun()
    for step in range(3 * MOST_UNANSWERED):
        arrivals.put(step, f"batch {step}")
        arrivals.tell(taken(step + 1), step + 1, 0)
    newest = 3 * MOST_UNANSWERED - 1
    for step in range(newest - MOST_UNANSWERED + 1, newest + 1):
        assert arrivals.batch(step) == f"batch {step}"
    with pytest.raises(KeyError):
        arrivals.batch(newest - MOST_UNANSWERED)


def test_what_comes_too_late_is_left_out_and_what_comes_early_is_counted() -> None:
    arrivals = begun()
    arrivals.tell(taken(5), 5, 0)
    arrivals.put(4, "again")
    with pytest.raises(KeyError):
        arrivals.batch(4)
    arrivals.put(5, "next")
    arrivals.put(6, "after that")
    found = arrivals.answers(4, 10.0)
    assert found is not None
    assert found.waiting == 2


def test_the_end_is_after_the_step_that_was_said() -> None:
    arrivals = begun()
    arrivals.finish(2)  # before the batches, whose calls it may have overtaken
    assert not arrivals.wait(0, 0.01)
    arrivals.put(0, "batch")
    assert arrivals.wait(0, 10.0)
    assert not arrivals.is_over(0)
    assert arrivals.wait(2, 10.0)
    assert arrivals.is_over(2)


def test_answers_outlive_the_trainer_but_it_takes_nothing_more() -> None:
    arrivals = begun()
    arrivals.tell(taken(2), 2, 2)
    arrivals.close()
    assert arrivals.answers(1, 10.0) == Answers(2, 2, taken(2))
    with pytest.raises(TrainerGone):
        arrivals.answers(2, 10.0)
    with pytest.raises(TrainerGone):
        arrivals.put(2, "batch")
    with pytest.raises(TrainerGone):
        arrivals.finish(2)


def test_of_a_million_epochs_a_few_thousand_are_told_of() -> None:
    """The first thousand all, and as many again about every time that their number doubles."""
    spec = replace(SPEC, online=Online(), epochs=1_000_000)
    told = [epoch for epoch in range(1, 1_000_001) if is_told(epoch, spec)]
    assert told[:1000] == list(range(1, 1001))
    assert len(told) < 7_000
    gaps = [later - earlier for earlier, later in pairwise(told)]
    assert max(gaps) < told[-1] / 400
