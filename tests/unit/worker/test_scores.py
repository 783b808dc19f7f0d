"""Scores: held against scikit-learn's, and exact for any split and any weights."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from worker.arrays import Array, Shape
from worker.scores import (
    CONFUSION,
    Auc,
    Confusion,
    Scores,
    TopAccuracy,
    binary_scores,
    class_scores,
    counted,
    number_scores,
    sizes,
    values,
)
from worker.scores.binary import BINS, bin_of

RNG = np.random.default_rng(8)
ROWS = 200


@dataclass(frozen=True)
class Case:
    name: str
    scores: Scores
    outputs: Array
    targets: Array
    expected: dict[str, Callable[[Array, Array, Array], float]]
    """By scikit-learn, from outputs, targets and weights."""


def classes(count: int) -> Case:
    outputs = RNG.standard_normal((ROWS, count)).astype(np.float32)
    targets = RNG.integers(count, size=ROWS)
    expected: dict[str, Callable[[Array, Array, Array], float]] = {
        "accuracy": lambda x, y, w: metrics.accuracy_score(y, x.argmax(axis=1), sample_weight=w),
        "f1": lambda x, y, w: metrics.f1_score(y, x.argmax(axis=1), average="macro", sample_weight=w),
    }
    if count == 2:
        expected["auc"] = lambda x, y, w: metrics.roc_auc_score(y, rounded(x[:, 1] - x[:, 0]), sample_weight=w)
    if count > 5:
        expected["top_5_accuracy"] = lambda x, y, w: metrics.top_k_accuracy_score(
            y, x, k=5, sample_weight=w, labels=np.arange(count)
        )
    return Case(f"{count} classes", class_scores((count,)), outputs, targets, expected)


def answers(count: int) -> Case:
    outputs = RNG.standard_normal((ROWS, count)).astype(np.float32)
    targets = (outputs + 2 * RNG.standard_normal((ROWS, count)) > 0.5).astype(np.uint8)
    expected: dict[str, Callable[[Array, Array, Array], float]] = {
        "accuracy": lambda x, y, w: np.average((x > 0) == y, weights=np.repeat(w[:, None], count, axis=1)),
        "f1": lambda x, y, w: metrics.f1_score(y, x > 0, average="binary" if count == 1 else "macro", sample_weight=w),
    }
    if count == 1:
        expected["auc"] = lambda x, y, w: metrics.roc_auc_score(y, rounded(x[:, 0]), sample_weight=w)
    return Case(f"{count} answers", binary_scores(count), outputs, targets, expected)


def numbers(count: int) -> Case:
    targets = 5 + RNG.standard_normal((ROWS, count))
    outputs = (targets + RNG.standard_normal((ROWS, count)) / 2).astype(np.float32)
    return Case(
        f"{count} numbers",
        number_scores((count,)),
        outputs,
        targets,
        {
            "mae": lambda x, y, w: metrics.mean_absolute_error(y, x, sample_weight=w),
            "rmse": lambda x, y, w: math.sqrt(metrics.mean_squared_error(y, x, sample_weight=w)),
            "r2": lambda x, y, w: metrics.r2_score(y, x, sample_weight=w),
        },
    )


def rounded(x: Array) -> Array:
    """Cut to the upper half of a float32's bits, which is as exact as AUC is."""
    return (np.ascontiguousarray(x, np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)


CASES = [classes(2), classes(4), classes(8), answers(1), answers(3), numbers(1), numbers(3)]

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@every_case
@pytest.mark.parametrize("weights", [None, RNG.random(ROWS)], ids=["plain", "weighted"])
def test_is_what_scikit_learn_computes(case: Case, weights: Array | None) -> None:
    found = values(case.scores, counted(case.scores, case.outputs, case.targets, weights))
    each = np.ones(ROWS) if weights is None else weights
    expected = {name: of(case.outputs, case.targets, each) for name, of in case.expected.items()}
    assert found == pytest.approx(expected, rel=1e-9)


@every_case
@settings(deadline=None, max_examples=20)
@given(cuts=st.lists(st.integers(0, ROWS), max_size=6).map(sorted))
def test_any_split_gives_the_same_value(case: Case, cuts: list[int]) -> None:
    whole = counted(case.scores, case.outputs, case.targets, None)
    parts = [
        counted(case.scores, x, y, None)
        for x, y in zip(np.split(case.outputs, cuts), np.split(case.targets, cuts), strict=True)
    ]
    total = {name: np.sum([part[name] for part in parts], axis=0) for name in whole}
    assert {name: len(sums) for name, sums in total.items()} == dict(sizes(case.scores))
    assert values(case.scores, total) == pytest.approx(values(case.scores, whole), rel=1e-12)


def test_the_confusion_matrix_is_scikit_learns() -> None:
    for case in (CASES[1], CASES[3]):
        guesses = case.outputs.argmax(axis=1) if case.outputs.shape[1] > 1 else case.outputs[:, 0] > 0
        score = case.scores[CONFUSION]
        total = score.sums(case.outputs, case.targets, None)
        matrix = total.reshape(math.isqrt(score.size), -1)
        np.testing.assert_array_equal(matrix, metrics.confusion_matrix(case.targets.reshape(-1), guesses))
        assert score.value(total) is None


def test_rows_of_the_confusion_matrix_are_the_truth() -> None:
    outputs = np.array([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    matrix = Confusion(3).matrix(Confusion(3).sums(outputs, np.array([2, 1]), None))
    np.testing.assert_array_equal(matrix, [[0, 0, 0], [0, 1, 0], [0, 1, 0]])


def test_of_equal_outputs_the_first_is_the_guess() -> None:
    """Or a network whose outputs are all the same would look as if it had learned."""
    outputs, targets = np.zeros((8, 8), np.float32), np.arange(8)
    assert values(class_scores((8,)), counted(class_scores((8,)), outputs, targets, None))["accuracy"] == 1 / 8
    assert TopAccuracy(5).value(TopAccuracy(5).sums(outputs, targets, None)) == 5 / 8


def test_places_that_are_left_out_count_in_no_score() -> None:
    outputs, targets = RNG.standard_normal((4, 3, 6)), RNG.integers(6, size=(4, 3))
    targets[1, 2] = targets[3, 0] = -1
    weights = RNG.random(4)
    is_counted = targets.reshape(-1) >= 0
    scores = class_scores((3, 6))
    of_places = counted(
        scores, outputs.reshape(12, 6)[is_counted], targets.reshape(-1)[is_counted], np.repeat(weights, 3)[is_counted]
    )
    for name, total in counted(scores, outputs, targets, weights).items():
        np.testing.assert_allclose(total, of_places[name], rtol=1e-13)


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=30))
def test_bins_grow_with_the_output(outputs: list[float]) -> None:
    x = np.sort(np.array(outputs, np.float32))
    bins = bin_of(x)
    assert bins.min() >= 0
    assert bins.max() < BINS
    assert (np.diff(bins) >= 0).all()
    np.testing.assert_array_equal(bin_of(-x), BINS - 1 - bins)


def test_outputs_that_differ_by_one_in_64_are_in_different_bins() -> None:
    x = np.geomspace(2.0**-11, 255, 500).astype(np.float32)
    assert (bin_of(x * np.float32(1 + 1 / 64)) > bin_of(x)).all()


@pytest.mark.parametrize(
    ("scores", "shape", "targets", "missing"),
    [
        (binary_scores(1), (1,), np.zeros(3), {"auc"}),
        (binary_scores(1), (1,), np.ones(3), {"auc"}),
        (number_scores((1,)), (1,), np.full(3, 0.1), {"r2"}),
        (number_scores((2,)), (2,), np.full((3, 2), 1e9), {"r2"}),
    ],
)
def test_what_there_is_not_is_left_out(scores: Scores, shape: Shape, targets: Array, missing: set[str]) -> None:
    found = values(scores, counted(scores, np.ones((3, *shape)), targets, None))
    assert missing == set(scores) - set(found) - {CONFUSION}


def test_what_is_not_finite_is_left_out() -> None:
    assert values(number_scores((1,)), {"mae": np.array([np.inf, 1]), "rmse": np.zeros(2), "r2": np.zeros(4)}) == {}


def test_large_shapes_have_no_large_scores() -> None:
    """However many classes or elements: the sums of a shard must be sent."""
    for scores in (class_scores((1_000_000,)), class_scores((101,)), binary_scores(5_000), number_scores((99, 99))):
        assert sum(size for _, size in sizes(scores)) <= 2 * Auc().size
