"""Preparation: what is learned comes of the training rows alone, and is then a fixed function that JSON keeps."""

from collections import Counter
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.data.classes import ClassNames
from service.data.columns import describe
from service.data.datasets import Dataset
from service.data.features import AsIs, OneHot, Scale, Standardise
from service.data.preparation import Feature, FittedPreparation, Kind, Preparation, fit, prepare
from service.data.words import Tokenise
from service.errors import InvalidArgument
from worker.arrays import Array

AGE = np.array([30.0, np.nan, 50.0, 40.0, 1e6])
SIZE = np.array([[1, 10], [2, 20], [3, 30], [4, 40], [900, 900]])
COLOUR = np.array(["red", "blue", "red", "green", "violet"])
TEXT = np.array(["The cat, the CAT!", "a dog", "the cat's dog", "", "zebra zebra zebra"])
KIND = np.array(["spam", "ham", "spam", "ham", "ham"])
COLUMNS = {"age": AGE, "size": SIZE, "colour": COLOUR, "text": TEXT, "kind": KIND}
TRAINING = np.arange(4)
"""All but the last row, whose values are unlike all others."""


def fitted(*features: Feature, target: ClassNames | Standardise | None = None, **columns: Array) -> FittedPreparation:
    given = {**COLUMNS, **columns}
    described = tuple(describe(name, array) for name, array in given.items())
    dataset = Dataset("people", 5, described, 0, "", datetime.min)
    arrays = list(given.values())
    return fit(Preparation(features, target), dataset, arrays.__getitem__, TRAINING, ("kind", ""), "data")


def refused(*features: Feature, target: ClassNames | Standardise | None = None, **columns: Array) -> dict[str, str]:
    with pytest.raises(InvalidArgument) as caught:
        fitted(*features, target=target, **columns)
    return {violation.field: violation.description for violation in caught.value.violations}


def test_standardised_training_rows_have_mean_0_and_deviation_1() -> None:
    rows = prepare(fitted(Feature(("size",), Standardise())), COLUMNS, np.float64)
    np.testing.assert_allclose(rows[TRAINING].mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(rows[TRAINING].std(axis=0), 1)
    np.testing.assert_allclose(rows[4], (900 - np.array([2.5, 25])) / np.array([1.25**0.5, 125**0.5]))


def test_missing_numbers_are_filled() -> None:
    rows = prepare(fitted(Feature(("age",), Standardise(), fill_mean=True)), COLUMNS, np.float64)
    assert rows[1, 0] == 0
    np.testing.assert_allclose(rows[0, 0], -10 / np.std([30, 50, 40]))
    rows = prepare(fitted(Feature(("age",), Scale(offset=20, scale=10), fill=0.0)), COLUMNS, np.float64)
    np.testing.assert_allclose(rows[:, 0], [1, -2, 3, 2, 99998])
    assert "fill" in refused(Feature(("age",), Standardise()))["data.features[0].columns"]


def test_one_hot_knows_the_training_rows_alone() -> None:
    made = fitted(Feature(("colour",), OneHot()))
    np.testing.assert_array_equal(prepare(made, COLUMNS), [[0, 0, 1], [1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 0]])
    numbers = np.array([7, -3, 7, 2**40, 5])
    np.testing.assert_array_equal(
        prepare(fitted(Feature(("n",), OneHot()), n=numbers), {"n": numbers})[:, :],
        np.equal.outer(numbers, [-3, 7, 2**40]),
    )


def test_words_by_their_frequency() -> None:
    made = fitted(Feature(("text",), Tokenise(vocabulary=5, length=4)))
    counts = Counter(["the", "cat", "the", "cat", "a", "dog", "the", "cat's", "dog"])
    ranked = sorted(counts, key=lambda word: (-counts[word], word))[:3]
    assert ranked == ["the", "cat", "dog"]
    rows = prepare(made, COLUMNS)
    np.testing.assert_array_equal(rows, [[2, 3, 2, 3], [1, 4, 0, 0], [2, 1, 4, 0], [0, 0, 0, 0], [1, 1, 1, 0]])
    assert rows.dtype.kind == "i"


def test_integers_stay_integers_alone_and_join_numbers() -> None:
    assert prepare(fitted(Feature(("size",), AsIs())), COLUMNS).dtype == np.int64
    both = fitted(Feature(("size",), AsIs()), Feature(("*",), Scale(scale=2.0), fill=0.0), text=AGE, colour=AGE)
    rows = prepare(both, {**COLUMNS, "text": AGE, "colour": AGE})
    assert (rows.shape, rows.dtype) == ((5, 5), np.dtype(np.float32))
    assert both.columns == ("size", "age", "colour", "text")


def test_classes_have_names() -> None:
    made = fitted(target=ClassNames())
    assert made.classes == ("ham", "spam")
    assert made.target is not None
    np.testing.assert_array_equal(made.target.apply(KIND), [1, 0, 1, 0, 0])
    assert fitted(target=ClassNames(("spam", "ham"))).classes == ("spam", "ham")
    assert fitted(target=ClassNames(), kind=np.array([10, -5, 10, 3, 3])).classes == ("-5", "3", "10")


WRONG: list[tuple[tuple[str, ...], Kind, str]] = [
    (("aeg",), Standardise(), "has 'aeg', which datasets/people doesn't have; its columns: 'age', 'size'"),
    (("colour",), Standardise(), "'colour' holds text; must hold numbers"),
    (("kind",), OneHot(), "is the target or the weight"),
    (("age",), Tokenise(), "'age' is a column of float64; tokenise takes one text a row"),
    (("empty",), Tokenise(), "has no word in any training row, so that the vocabulary would be empty"),
    (("size",), OneHot(), "has rows of shape (2,); categories are one value a row"),
    (("half",), OneHot(), "has numbers with a fraction; categories are integers or texts"),
    (("nothing",), OneHot(), "has no value in any training row"),
]


@pytest.mark.parametrize(("columns", "kind", "problem"), WRONG)
def test_what_is_wrong_with_a_column_is_said(columns: tuple[str, ...], kind: Kind, problem: str) -> None:
    more = {
        "empty": np.array(["", "?!", " ", "-", "word"]),
        "half": AGE / 60,
        "nothing": np.array([np.nan] * 4 + [1.0]),
    }
    assert problem in refused(Feature(columns, kind), target=None, **more)["data.features[0].columns"]


def test_a_class_without_training_rows_is_refused() -> None:
    assert "no training row of the class 'eggs'; its classes: ham, spam" in str(
        refused(target=ClassNames(("ham", "eggs", "spam")))
    )


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.floats(-1e6, 1e6), min_size=6, max_size=6),
    st.lists(st.text("ab c", max_size=6), min_size=6, max_size=6),
    st.sets(st.integers(0, 5), min_size=1, max_size=5),
)
def test_rows_that_are_not_trained_on_teach_nothing(numbers: list[float], texts: list[str], chosen: set[int]) -> None:
    rows = np.array(sorted(chosen))
    features = Feature(("n",), Standardise(), fill_mean=True), Feature(("t",), OneHot())

    def learned(n: Array, t: Array) -> FittedPreparation:
        dataset = Dataset("d", 6, (describe("n", n), describe("t", t), describe("y", t)), 0, "", datetime.min)
        return fit(Preparation(features, ClassNames()), dataset, [n, t, t].__getitem__, rows, ("y", ""), "data")

    n, t = np.array(numbers), np.array(texts, "<U9")
    others = np.setdiff1d(np.arange(6), rows)
    changed_n, changed_t = n.copy(), t.copy()
    changed_n[others], changed_t[others] = 1e9, "other"
    made = learned(n, t)
    assert made == learned(changed_n, changed_t)
    assert FittedPreparation.from_json(made.to_json()) == made
