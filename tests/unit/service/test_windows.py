"""Windows: which rows each is made of, and that what is held out is never a target of the training."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.data.windows import Windows, in_pieces
from worker.errors import InvalidValue

few = st.integers(1, 5)
any_windows = st.builds(Windows, few, few, few)


@given(any_windows, st.integers(0, 40))
def test_a_window_is_some_rows_and_its_target_lies_ahead(windows: Windows, rows: int) -> None:
    numbers = np.stack([np.arange(rows), -np.arange(rows)], axis=1)
    count = windows.count(rows)
    everything = range(count)
    if not count:
        assert rows < windows.length + windows.ahead + windows.targets - 1
        return
    inputs, outcomes = windows.inputs(numbers, everything), windows.outcomes(numbers, everything)
    for window in everything:
        last = window + windows.length - 1
        assert inputs[window, :, 0].tolist() == list(range(window, last + 1))
        first = last + windows.ahead
        expected = numbers[first : first + windows.targets]
        np.testing.assert_array_equal(outcomes[window], expected if windows.targets > 1 else expected[0])
    assert first + windows.targets == rows  # the last target is the last row


@given(any_windows, st.integers(1, 40), st.integers(0, 10))
def test_no_held_out_target_is_trained_on(windows: Windows, rows: int, held_out: int) -> None:
    used = windows.usable(rows, holds_out=held_out > 0)
    if used <= held_out:
        return
    trained, held = windows.parts(rows, used - held_out, held_out)
    assert (len(trained), len(held)) == (used - held_out, held_out)
    numbers = np.arange(rows)
    seen = {*windows.inputs(numbers, trained).flat, *windows.outcomes(numbers, trained).flat}
    assert max(seen) < rows
    assert seen <= set(windows.covered(trained))
    if held_out:
        targets = set(windows.outcomes(numbers, held).flat)
        assert not seen & targets
        assert max(windows.covered(trained)) < min(targets)


def test_pieces_are_the_same_windows_in_the_same_order() -> None:
    parts = range(5), range(9, 11)
    assert [list(piece) for piece in in_pieces(parts, 2)] == [[0, 1], [2, 3], [4], [9, 10]]


@pytest.mark.parametrize("field", ["length", "ahead", "targets"])
@pytest.mark.parametrize("value", [0, -1, 10_001])
def test_absurd_numbers_of_rows_are_named(field: str, value: int) -> None:
    asked: dict[str, Any] = {"length": 3, field: value}
    with pytest.raises(InvalidValue) as caught:
        Windows(**asked)
    assert caught.value.field == field
