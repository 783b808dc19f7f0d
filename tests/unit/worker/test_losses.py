"""What every loss promises. A new loss costs one row of CASES, and rows of FITS and MISFITS for its targets."""

import re
from dataclasses import dataclass

import numpy as np
import pytest

from tests.unit.worker.central_differences import assert_is_gradient
from worker.arrays import Array, Shape
from worker.errors import TargetMismatch
from worker.losses import LOSSES, Loss, MeanSquaredError, SoftmaxCrossEntropy, TargetColumn


@dataclass(frozen=True)
class Case:
    name: str
    loss: Loss
    output_shape: Shape
    targets: Array

    def outputs(self, seed: int = 2) -> Array:
        return np.random.default_rng(seed).standard_normal((len(self.targets), *self.output_shape))


CASES = [
    Case("softmax", SoftmaxCrossEntropy(), (4,), np.array([0, 3, 1, 1, 2])),
    Case("softmax, two classes", SoftmaxCrossEntropy(), (2,), np.array([0, 1, 1])),
    Case("softmax, small unsigned", SoftmaxCrossEntropy(), (3,), np.array([0, 2, 1], np.uint8)),
    Case("softmax, large unsigned", SoftmaxCrossEntropy(), (3,), np.array([0, 2, 1], np.uint64)),
    Case("squared", MeanSquaredError(), (3,), np.arange(12.0).reshape(4, 3) / 7),
    Case("squared, one number a row", MeanSquaredError(), (1,), np.array([0.5, -2.0, 1.5])),
    Case("squared, an image", MeanSquaredError(), (2, 3, 2), np.linspace(-1, 1, 24).reshape(2, 2, 3, 2)),
    Case("squared, integers", MeanSquaredError(), (1,), np.array([3, -1, 0], np.int8)),
    Case("squared, unsigned", MeanSquaredError(), (2,), np.array([[0, 255], [7, 1]], np.uint8)),
]

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def test_every_loss_is_in_the_table() -> None:
    assert {type(case.loss) for case in CASES} == set(LOSSES.values())


@every_case
def test_gradient(case: Case) -> None:
    outputs = case.outputs()
    _, gradient, _ = case.loss(outputs, case.targets)
    assert_is_gradient(gradient, lambda outputs: case.loss(outputs, case.targets)[0], outputs)


@every_case
def test_is_the_sum_over_rows(case: Case) -> None:
    outputs = case.outputs()
    loss, gradient, _ = case.loss(outputs, case.targets)
    alone = [case.loss(outputs[row : row + 1], case.targets[row : row + 1]) for row in range(len(outputs))]
    assert loss == pytest.approx(sum(judged.loss for judged in alone), rel=1e-14)
    np.testing.assert_allclose(gradient, np.concatenate([judged.gradient for judged in alone]), rtol=1e-14)


@every_case
def test_scores_are_sums_over_rows(case: Case) -> None:
    outputs = case.outputs()
    for score in case.loss.scores.values():
        alone = [score(outputs[row : row + 1], case.targets[row : row + 1]) for row in range(len(outputs))]
        assert score(outputs, case.targets) == sum(alone)
        assert score(outputs[:0], case.targets[:0]) == 0


@every_case
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_outputs_stay_finite(case: Case, dtype: type) -> None:
    outputs: Array = np.where(case.outputs() > 0, 1e4, -1e4).astype(dtype)
    loss, gradient, _ = case.loss(outputs, case.targets)
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()
    assert gradient.dtype == dtype


@every_case
def test_no_rows(case: Case) -> None:
    loss, gradient, _ = case.loss(case.outputs()[:0], case.targets[:0])
    assert loss == 0
    assert gradient.shape == (0, *case.output_shape)


@every_case
def test_nothing_it_is_given_is_changed(case: Case) -> None:
    outputs, targets = case.outputs(), case.targets.copy()
    case.loss(outputs, targets)
    np.testing.assert_array_equal(outputs, case.outputs())
    np.testing.assert_array_equal(targets, case.targets)


@pytest.mark.parametrize(
    ("logits", "target", "loss"),
    [
        ([0.0, 0.0, 0.0, 0.0], 2, np.log(4)),
        ([0.0, np.log(3)], 1, np.log(4 / 3)),
        ([1e4, -1e4], 0, 0.0),
        ([1e4, -1e4], 1, 2e4),
        ([1e4, 1e4], 1, np.log(2)),
        ([-1e4, -1e4], 1, np.log(2)),
    ],
)
def test_softmax_cross_entropy_by_hand(logits: list[float], target: int, loss: float) -> None:
    assert SoftmaxCrossEntropy()(np.array([logits]), np.array([target]))[0] == pytest.approx(loss, rel=1e-14)


def test_softmax_cross_entropy_is_the_textbook_formula() -> None:
    case = CASES[0]
    probabilities = np.exp(case.outputs()) / np.exp(case.outputs()).sum(axis=1, keepdims=True)
    loss, gradient, _ = case.loss(case.outputs(), case.targets)
    assert loss == pytest.approx(-np.log(probabilities[np.arange(5), case.targets]).sum(), rel=1e-14)
    np.testing.assert_allclose(gradient, probabilities - np.eye(4)[case.targets], rtol=1e-13)


def test_mean_squared_error_by_hand() -> None:
    loss, gradient, _ = MeanSquaredError()(np.array([[1.0, 2.0], [0.0, 4.0]]), np.array([[0.0, 0.0], [1.0, 1.0]]))
    assert loss == (1 + 4) / 2 + (1 + 9) / 2
    np.testing.assert_array_equal(gradient, [[1, 2], [-1, 3]])


def test_accuracy_counts_the_rows_whose_largest_output_is_at_the_class() -> None:
    outputs = np.array([[0.1, 0.9, 0.0], [5.0, 1.0, 2.0], [-3.0, -2.0, -1.0]])
    accuracy = SoftmaxCrossEntropy().scores["accuracy"]
    assert accuracy(outputs, np.array([1, 0, 2])) == 3
    assert accuracy(outputs, np.array([1, 1, 1])) == 1


def classes(low: float, high: float, *, integral: bool = True, row_shape: Shape = ()) -> TargetColumn:
    return TargetColumn(integral, row_shape, low, high)


def numbers(*row_shape: int) -> TargetColumn:
    return TargetColumn(integral=False, row_shape=row_shape, min=-1, max=1)


FITS: list[tuple[Loss, Shape, TargetColumn]] = [
    (SoftmaxCrossEntropy(), (3,), classes(0, 2)),
    (SoftmaxCrossEntropy(), (3,), classes(1, 1)),
    (MeanSquaredError(), (3,), numbers(3)),
    (MeanSquaredError(), (1,), numbers()),
    (MeanSquaredError(), (2, 2), numbers(2, 2)),
    (MeanSquaredError(), (1,), classes(0, 255)),
]

MISFITS: list[tuple[Loss, Shape, TargetColumn, str]] = [
    (SoftmaxCrossEntropy(), (3,), classes(0, 3), "classes from 0 to 3, but the network ends in 3 units"),
    (SoftmaxCrossEntropy(), (3,), classes(-1, 2), "classes from -1 to 2"),
    (SoftmaxCrossEntropy(), (3,), classes(0, 2, integral=False), "integers"),
    (SoftmaxCrossEntropy(), (3,), classes(0, 2, row_shape=(1,)), "one class number a row"),
    (SoftmaxCrossEntropy(), (3,), classes(0, 1, row_shape=(3,)), "one class number a row"),
    (SoftmaxCrossEntropy(), (1,), classes(0, 0), "at least 2, but the network ends in (1,)"),
    (SoftmaxCrossEntropy(), (2, 3), classes(0, 2), "one logit a class"),
    (MeanSquaredError(), (3,), numbers(), "rows of shape (), but the network ends in (3,)"),
    (MeanSquaredError(), (3,), numbers(4), "rows of shape (4,), but the network ends in (3,)"),
    (MeanSquaredError(), (4,), numbers(2, 2), "rows of shape (2, 2), but the network ends in (4,)"),
    (MeanSquaredError(), (2, 2), numbers(4), "rows of shape (4,), but the network ends in (2, 2)"),
]


@pytest.mark.parametrize(("loss", "output_shape", "column"), FITS)
def test_targets_that_fit(loss: Loss, output_shape: Shape, column: TargetColumn) -> None:
    loss.check(output_shape, column)
    targets = np.full((2, *column.row_shape), column.max, np.int64 if column.integral else np.float64)
    total, gradient, _ = loss(np.zeros((2, *output_shape)), targets)
    assert np.isfinite(total)
    assert gradient.shape == (2, *output_shape)


@pytest.mark.parametrize(("loss", "output_shape", "column", "message"), MISFITS)
def test_targets_that_do_not_fit(loss: Loss, output_shape: Shape, column: TargetColumn, message: str) -> None:
    with pytest.raises(TargetMismatch, match=re.escape(message)):
        loss.check(output_shape, column)
