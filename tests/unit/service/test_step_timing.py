"""The anatomy of a step: its phases add up to it, whatever the clocks of others say."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cluster.workers import CAUSES, Computed, Spent, computed, packed
from service.training.outbox import Outbox
from service.training.timing import BUCKETS, PHASES, Histogram, Timing
from tests.unit.service.examples import DATA, task
from tests.unit.service.training_run import STEPS, Run
from tests.unit.service.unreliable import UnreliableWorkers
from worker.orders import Took

SECONDS = st.floats(0, 1e3)
NANOSECONDS = st.integers(0, 10**12)
ORDERS = st.lists(st.builds(Computed, st.integers(0, 3), NANOSECONDS, NANOSECONDS, st.integers(1, 5)))
PACKED = ORDERS.map(lambda orders: packed(*orders))


def order(worker: int, forward: float, backward: float, shards: int = 1) -> Computed:
    return computed(worker, Took(forward, backward, shards))


@given(SECONDS, SECONDS, SECONDS, PACKED)
def test_phases_add_up(split: float, rest: float, gather: float, orders: bytes) -> None:
    timing = Timing()
    timing.step(split + rest + gather, Spent(split, gather, orders), 0.5, 0.25)
    timing.count()
    assert sum(timing.seconds[phase] for phase in PHASES) == pytest.approx(split + rest + gather + 0.75)
    assert timing.steps.seconds == pytest.approx(split + rest + gather + 0.75)
    assert all(seconds >= -1e-9 for seconds in timing.seconds.values())
    assert [sum(timing.phases[phase].counts) for phase in PHASES] == [1] * len(PHASES)


@given(
    st.lists(
        st.tuples(
            SECONDS,
            st.builds(Spent, SECONDS, SECONDS, PACKED, st.integers(0, 1 << 40), PACKED),
        )
    )
)
def test_steps_count_the_same_together_as_one_by_one(steps: list[tuple[float, Spent]]) -> None:
    together, one_by_one = Timing(), Timing()
    for rest, spent in steps:
        for timing in (together, one_by_one):
            timing.step(spent.split + rest + spent.gather, spent, 0.5, 0.25)
        one_by_one.count()
    together.count()
    assert together.exchanged_bytes == one_by_one.exchanged_bytes
    assert together.compute_seconds == pytest.approx(one_by_one.compute_seconds)
    for phase in PHASES:
        assert sum(together.phases[phase].counts) == len(steps)
        assert together.seconds[phase] == pytest.approx(one_by_one.seconds[phase], rel=1e-9, abs=1e-9)
    assert together.steps.counts == one_by_one.steps.counts


def test_a_duration_is_counted_under_the_first_bound_that_it_is_not_beyond() -> None:
    one_by_one, timing = Histogram(), Timing()
    durations = [*BUCKETS, *(0.9 * bound for bound in BUCKETS), 11.0]
    for seconds in durations:
        one_by_one.add(seconds)
        timing.step(seconds, Spent(), 0.0, 0.0)
    timing.count()
    assert one_by_one.counts == timing.steps.counts == [2] * len(BUCKETS) + [1]
    assert timing.steps.seconds == pytest.approx(one_by_one.seconds) == pytest.approx(sum(durations))


@pytest.mark.parametrize(
    ("means", "ratio"),
    [([], None), ([1.0], None), ([1.0, 3.0], 3.0), ([2.0, 1.0, 4.0], 2.0), ([1.0, 2.0, 3.0, 8.0], 4.0)],
    ids=lambda value: str(value),
)
def test_how_far_the_slowest_worker_is_behind(means: Sequence[float], ratio: float | None) -> None:
    timing = Timing()
    for shards in (1, 3):
        orders = [order(n, mean * shards / 4, mean * shards * 3 / 4, shards) for n, mean in enumerate(means)]
        timing.step(1.0, Spent(computed=packed(*orders)), 0.0, 0.0)
    assert timing.straggler_ratio() == ratio
    assert timing.straggler_ratio() is None  # nothing was computed since
    timing.step(1.0, Spent(computed=packed(order(0, 1.0, 1.0))), 0.0, 0.0)
    assert timing.straggler_ratio() == (1.0 if len(means) > 1 else None)


def test_forward_and_backward_are_those_of_the_worker_that_all_waited_for() -> None:
    timing = Timing()
    orders = [order(0, 1.0, 2.0), order(1, 2.0, 0.5), order(1, 1.0, 0.5)]
    timing.step(10.0, Spent(0.25, 0.5, packed(*orders), 100, late=packed(order(2, 50.0, 50.0))), 0.0, 0.0)
    timing.count()
    assert {phase: timing.seconds[phase] for phase in PHASES[:5]} == {
        "split": 0.25,
        "wait": 5.25,
        "forward": 3.0,
        "backward": 1.0,
        "gather": 0.5,
    }
    assert timing.compute_seconds == {0: 3.0, 1: 4.0, 2: 100.0}
    assert timing.exchanged_bytes == 100


def test_clocks_that_say_more_than_there_was_are_not_believed() -> None:
    timing = Timing()
    timing.step(4.0, Spent(0.5, 0.5, packed(order(0, 9.0, 3.0))), 0.0, 0.0)
    timing.count()
    assert {phase: timing.seconds[phase] for phase in PHASES[1:4]} == {"wait": 0.0, "forward": 2.25, "backward": 0.75}


def test_what_a_job_lost_is_counted_by_cause_and_how_long_it_took_to_come_back(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.train(UnreliableWorkers(task(), DATA, 2, {3: [1], 6: [0, 1]}))
    timing = run.timing
    timing.count()
    assert timing.losses == {**dict.fromkeys(CAUSES, 0), "process_ended": 3}
    assert sum(timing.recoveries.counts) == 3
    assert timing.recoveries.seconds > 0
    assert sum(timing.steps.counts) == STEPS
    assert timing.compute_seconds.keys() == {0, 1}


def test_nothing_is_counted_before_there_is_a_step() -> None:
    timing = Timing()
    assert timing.steps.seconds == sum(timing.seconds.values()) == timing.exchanged_bytes == 0
    assert Outbox().progress().health is None
