"""Preparations in model files that strangers send: kept if they are what they say, else refused as a whole."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.data.classes import FittedClasses
from service.data.features import FittedCategories, FittedNumbers
from service.data.preparation import FittedPreparation
from service.data.windows import Windows
from service.data.words import FittedWords
from service.errors import InvalidArgument, Violations
from service.wire.fitted import parse_fitted

NUMBERS = FittedNumbers("n", (1.0, 2.0), (0.5, 2.0), (0.0, 0.0))
CLASSES = FittedClasses("y", ("a", "b"))
WHOLE = [
    FittedPreparation((NUMBERS, FittedCategories("c", (1, 5))), CLASSES),
    FittedPreparation((FittedNumbers("m", (0.0,), (1.0,), None, True),), None, Windows(7)),
    FittedPreparation((FittedWords("t", ("the", "cat's"), 9),), FittedClasses("y", (-1, 1))),
    FittedPreparation((), NUMBERS),
]


def problems(text: str, shape: tuple[int, ...]) -> list[str]:
    violations = Violations()
    kept = parse_fitted(text, shape, "preparation", violations)
    found = []
    try:
        violations.raise_any()
    except InvalidArgument as error:
        found = [violation.description for violation in error.violations]
    assert kept == ("" if found else text)
    return found


@pytest.mark.parametrize("number", range(len(WHOLE)))
def test_what_we_write_is_taken(number: int) -> None:
    fitted = WHOLE[number]
    shape = fitted.row_shape if fitted.inputs else (3, 3)
    assert problems(fitted.to_json(), shape) == []
    if fitted.inputs:
        assert "the network takes (2, 3)" in problems(fitted.to_json(), (2, 3))[0]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


@given(st.sampled_from(WHOLE), st.data())
def test_anything_else_is_refused_and_never_fails(fitted: FittedPreparation, data: st.DataObject) -> None:
    """One value anywhere in it becomes something else; what is still taken can be read."""
    values: Any = json.loads(fitted.to_json())
    at, key = values, data.draw(st.sampled_from(sorted(values)))
    while isinstance(at[key], dict | list) and at[key] and data.draw(st.booleans()):
        at = at[key]
        key = data.draw(st.sampled_from(sorted(at)) if isinstance(at, dict) else st.integers(0, len(at) - 1))
    at[key] = data.draw(json_values)
    text = json.dumps(values)
    if not problems(text, fitted.row_shape):
        again = FittedPreparation.from_json(text)
        assert not again.inputs or again.row_shape == fitted.row_shape


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"inputs": []}', "[" * 100_000])
def test_what_is_no_preparation_is_refused(text: str) -> None:
    assert "is not a preparation" in problems(text, (2,))[0]
