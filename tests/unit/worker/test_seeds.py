"""Streams of random numbers: what they are for is part of every result."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.seeds import Purpose, generator

USES = st.tuples(
    st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 5, 2**32 + 5, 2 * 2**32 + 5]),
    st.sampled_from(Purpose),
    st.lists(st.integers(0, 3), max_size=3),
)


def test_purposes_are_pinned() -> None:
    """A number that changes changes every result that was ever had. Add rows; never change one."""
    assert {purpose.name: purpose.value for purpose in Purpose} == {
        "PARAMETERS": 0,
        "SPLIT": 1,
        "ORDER": 2,
        "LAYER": 3,
        "FEEDBACK": 4,
        "EPISODE": 5,
        "EPISODE_START": 6,
    }


@settings(deadline=None)
@given(USES, USES)
def test_same_use_same_numbers_other_use_other_numbers(
    one: tuple[int, Purpose, list[int]], other: tuple[int, Purpose, list[int]]
) -> None:
    numbers, others = (generator(seed, purpose, *key).integers(2**63, size=4) for seed, purpose, key in (one, other))
    assert np.array_equal(numbers, others) == (one == other)


def test_an_absent_key_is_not_a_zero() -> None:
    """Zeros at the end of a SeedSequence's entropy are lost; a use must not be."""
    assert generator(0, Purpose.PARAMETERS).random() != generator(0, Purpose.PARAMETERS, 0).random()


def test_a_large_seed_does_not_run_into_the_purpose() -> None:
    """A seed past 32 bits is two words of entropy, the second of which must not be taken for what follows."""
    assert generator(5 + 2 * 2**32, Purpose.PARAMETERS, 0).random() != generator(5, Purpose.ORDER, 0).random()


def test_a_generator_owes_nothing_to_earlier_ones() -> None:
    before = generator(1, Purpose.ORDER, 7).random(3)
    generator(1, Purpose.ORDER, 6).random(100)
    np.testing.assert_array_equal(generator(1, Purpose.ORDER, 7).random(3), before)
