"""Which rows go where: every training row once an epoch, and none that is held out."""

from random import Random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from worker.arrays import Rows
from worker.shards import Shards, Split

SHARDS = st.builds(
    Shards,
    rows=st.integers(1, 150),
    validation_fraction=st.floats(0, 1, exclude_max=True),
    batch_size=st.integers(1, 70),
    shards=st.integers(1, 9),
    seed=st.integers(0, 2**64 - 1),
    window=st.just(0) | st.integers(1, 200),
)
quick = settings(deadline=None, max_examples=60)


def epoch(of: Shards, number: int) -> list[list[Rows]]:
    """The rows of an epoch, by step and shard."""
    first = number * of.steps_per_epoch
    return [
        [of.training(step, shard) for shard in range(of.shards)] for step in range(first, first + of.steps_per_epoch)
    ]


def flat(steps: list[list[Rows]]) -> list[int]:
    return [int(row) for step in steps for shard in step for row in shard]


def held_out(of: Shards) -> list[int]:
    return [int(row) for shard in range(of.shards) for row in of.validation(shard)]


@quick
@given(SHARDS, st.integers(0, 5))
def test_an_epoch_and_the_held_out_rows_are_all_rows_once(of: Shards, number: int) -> None:
    assert sorted(flat(epoch(of, number)) + held_out(of)) == list(range(of.rows))


@quick
@given(SHARDS)
def test_held_out_rows_stay_held_out(of: Shards) -> None:
    assert set(flat(epoch(of, 0))) == set(flat(epoch(of, 1)))
    assert (len(held_out(of)), len(flat(epoch(of, 0)))) == (of.validation_count, of.training_count)


@quick
@given(SHARDS)
def test_every_batch_is_full_but_the_last(of: Shards) -> None:
    *full, last = [sum(map(len, step)) for step in epoch(of, 0)]
    assert full == [of.batch_size] * len(full)
    assert 1 <= last <= of.batch_size


@quick
@given(SHARDS)
def test_shards_differ_by_one_row_at_most(of: Shards) -> None:
    for step in [*epoch(of, 0), [of.validation(shard) for shard in range(of.shards)]]:
        sizes = [len(shard) for shard in step]
        assert max(sizes) - min(sizes) <= 1


@quick
@given(SHARDS, st.randoms(use_true_random=False))
def test_pure_functions(of: Shards, random: Random) -> None:
    """Another instance, asked in any order, with other questions in between, answers the same."""
    steps = [epoch(of, number) for number in range(6)]
    questions = [(step, shard) for step in range(6 * of.steps_per_epoch) for shard in range(of.shards)]
    asked = random.sample(questions, min(len(questions), 20))
    other = Shards(of.rows, of.validation_fraction, of.batch_size, of.shards, of.seed, of.window)
    for step, shard in asked:
        number, index = divmod(step, of.steps_per_epoch)
        np.testing.assert_array_equal(other.training(step, shard), steps[number][index][shard])
    assert held_out(other) == held_out(of)


@quick
@given(SHARDS, st.integers(1, 9))
def test_a_batch_does_not_depend_on_the_number_of_shards(of: Shards, shards: int) -> None:
    """Nor does what is held out: shards only cut it."""
    other = Shards(of.rows, of.validation_fraction, of.batch_size, shards, of.seed, of.window)
    assert flat(epoch(of, 1)) == flat(epoch(other, 1))
    assert held_out(of) == held_out(other)


@quick
@given(SHARDS)
def test_epochs_and_seeds_differ(of: Shards) -> None:
    assume(of.training_count >= 30 and of.window not in range(1, 12))
    other = Shards(of.rows, of.validation_fraction, of.batch_size, of.shards, of.seed + 1, of.window)
    orders = [flat(epoch(of, 0)), flat(epoch(of, 1)), flat(epoch(of, 2)), flat(epoch(other, 0))]
    assert len({tuple(order) for order in orders}) == len(orders)


@quick
@given(SHARDS)
def test_rows_that_are_handed_out_cannot_reach_back(of: Shards) -> None:
    """Writing to an answer must not change the next one: it is a copy, or it refuses."""
    expected = (held_out(of), flat(epoch(of, 0)))
    for rows in (of.validation(0), of.training(0, of.shards - 1)):
        if rows.flags.writeable:
            rows[...] = 0
    assert (held_out(of), flat(epoch(of, 0))) == expected


@pytest.mark.parametrize(
    ("rows", "fraction", "held_out"),
    [
        (10, 0.0, 0),
        (10, 0.2, 2),
        (11, 0.2, 2),
        (13, 0.2, 3),
        (10, 0.01, 0),
        (10, 0.99, 9),
        (1000, 0.9999, 999),
        (2, 0.5, 1),
        (2, 0.99, 1),
        (1, 0.0, 0),
        (1, 0.5, 0),
        (1, 0.999, 0),
    ],
)
def test_how_many_rows_are_held_out(rows: int, fraction: float, held_out: int) -> None:
    of = Shards(rows, fraction, batch_size=4, shards=2, seed=0)
    assert (of.validation_count, of.training_count) == (held_out, rows - held_out)


@pytest.mark.parametrize(
    ("rows", "batch_size", "steps", "last"), [(8, 4, 2, 4), (9, 4, 3, 1), (3, 4, 1, 3), (4, 4, 1, 4), (1, 1, 1, 1)]
)
def test_the_last_batch_takes_what_is_left(rows: int, batch_size: int, steps: int, last: int) -> None:
    of = Shards(rows, 0.0, batch_size, shards=3, seed=0)
    assert of.steps_per_epoch == steps
    assert sum(map(len, epoch(of, 0)[-1])) == last


def test_held_out_rows_are_drawn_not_cut_off() -> None:
    """Data often comes sorted by class."""
    of = Shards(1000, 0.2, batch_size=32, shards=2, seed=0)
    assert np.mean(held_out(of)) == pytest.approx(500, abs=60)


@quick
@given(SHARDS, st.integers(0, 3))
def test_a_window_keeps_neighbours_together(of: Shards, number: int) -> None:
    """The training rows, in windows as wide as it, come one window after the other: each is needed at one time only."""
    assume(of.window)
    trained_on = sorted(set(range(of.rows)) - set(held_out(of)))
    place = {row: place for place, row in enumerate(trained_on)}
    windows = [place[row] // of.window for row in flat(epoch(of, number))]
    seen = [window for at, window in enumerate(windows) if at == 0 or windows[at - 1] != window]
    assert len(seen) == len(set(seen))


def test_windows_come_in_random_order_and_are_shuffled() -> None:
    of = Shards(1000, 0.0, batch_size=100, shards=2, seed=0, window=100)
    batches = [[row for shard in step for row in shard] for step in epoch(of, 0)]
    assert [min(batch) for batch in batches] != sorted(min(batch) for batch in batches)
    for batch in batches:
        assert max(batch) - min(batch) == 99
        assert sorted(batch) != list(map(int, batch))


@pytest.mark.parametrize("window", [0, 100, 500])
def test_a_window_of_all_rows_is_none(window: int) -> None:
    of = Shards(100, 0.2, batch_size=10, shards=2, seed=5, window=window)
    assert flat(epoch(of, 2)) == flat(epoch(Shards(100, 0.2, batch_size=10, shards=2, seed=5), 2))


@pytest.mark.parametrize("shards", [1, 3])
def test_the_last_rows_can_be_held_out(shards: int) -> None:
    of = Shards(50, 0.3, batch_size=8, shards=shards, seed=4, split=Split.LAST)
    assert held_out(of) == list(range(35, 50))
    assert sorted(flat(epoch(of, 1))) == list(range(35)) == of.training_rows.tolist()
