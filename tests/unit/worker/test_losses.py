"""What every loss promises. A new loss costs one row of CASES, and rows of FITS and MISFITS for its targets."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.unit.worker.central_differences import assert_is_gradient
from worker.arrays import Array, Shape
from worker.errors import InvalidValue, TargetMismatch
from worker.losses import (
    LOSSES,
    BinaryCrossEntropy,
    Hinge,
    Huber,
    Loss,
    MeanAbsoluteError,
    MeanSquaredError,
    Rivals,
    SoftmaxCrossEntropy,
    TargetColumn,
)
from worker.scores import counted, nothing


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
    Case("softmax, weighted", SoftmaxCrossEntropy((0.5, 2.0, 0.0)), (3,), np.array([0, 2, 1, 1])),
    Case("softmax, smoothed", SoftmaxCrossEntropy(label_smoothing=0.3), (4,), np.array([0, 3, 1])),
    Case("softmax, both", SoftmaxCrossEntropy((0.5, 2.0, 3.0), 0.3), (3,), np.array([0, 2, 1, 1])),
    Case("softmax, sequences", SoftmaxCrossEntropy(), (3, 4), np.array([[0, 3, 1], [2, -1, -1], [-1, -1, 0]])),
    Case("softmax, whole sequences", SoftmaxCrossEntropy(), (3, 4), np.array([[0, 3, 1], [2, 1, 1]])),
    Case("softmax, no place", SoftmaxCrossEntropy(), (2, 3), np.array([[0, 1], [-1, -1]], np.int8)),
    Case("softmax, images", SoftmaxCrossEntropy((1.0, 0.5), 0.1), (2, 2, 2), np.array([[[0, 1], [1, -1]]])),
    Case("binary", BinaryCrossEntropy(), (1,), np.array([0, 1, 1])),
    Case("binary, booleans", BinaryCrossEntropy(), (2,), np.array([[False, True], [True, True]])),
    Case("binary, weighted", BinaryCrossEntropy(3.0, 0.2), (3,), np.array([[0, 1, 1], [0, 0, 1]], np.uint8)),
    Case("binary, probabilities", BinaryCrossEntropy(0.5), (2,), np.array([[0.25, 1.0], [0.0, 0.75]])),
    Case("absolute", MeanAbsoluteError(), (3,), np.arange(12.0).reshape(4, 3) / 7),
    Case("absolute, one number a row", MeanAbsoluteError(), (1,), np.array([0.5, -2.0, 1.5])),
    Case("huber", Huber(0.7), (3,), np.arange(12.0).reshape(4, 3) / 7),
    Case("huber, integers", Huber(), (1,), np.array([3, -1, 0], np.int8)),
    Case("hinge", Hinge(), (1,), np.array([0, 1, 1, 0])),
    Case("hinge, signs", Hinge(), (1,), np.array([-1.0, 1.0, 1.0])),
    Case("hinge, strongest", Hinge(), (4,), np.array([0, 3, 1, 1, 2])),
    Case("hinge, all", Hinge(Rivals.ALL), (4,), np.array([0, 3, 1, 1, 2], np.uint8)),
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
def test_a_weight_of_two_is_the_row_twice(case: Case) -> None:
    """In the loss, its gradient, what it is divided by, and every score."""
    outputs = case.outputs()
    weights = np.arange(len(outputs)) % 3
    rows = np.repeat(np.arange(len(outputs)), weights)
    weighted = case.loss(outputs, case.targets, weights.astype(np.float64))
    repeated = case.loss(outputs[rows], case.targets[rows])
    assert weighted.loss == pytest.approx(repeated.loss, rel=1e-13)
    assert weighted.weight == pytest.approx(repeated.weight, rel=1e-13)
    times = weights[rows].reshape(-1, *[1] * (outputs.ndim - 1))
    np.testing.assert_allclose(weighted.gradient[rows], repeated.gradient * times, rtol=1e-12, atol=1e-15)
    for scores in (case.loss.scores(case.output_shape), case.loss.training_scores(case.output_shape)):
        once = counted(scores, outputs[rows], case.targets[rows], None)
        for name, total in counted(scores, outputs, case.targets, weights.astype(np.float64)).items():
            np.testing.assert_allclose(total, once[name], rtol=1e-13)


@every_case
def test_scores_are_sums_over_rows(case: Case) -> None:
    outputs = case.outputs()
    scores = case.loss.scores(case.output_shape)
    whole = counted(scores, outputs, case.targets, None)
    alone = [counted(scores, outputs[r : r + 1], case.targets[r : r + 1], None) for r in range(len(outputs))]
    none = counted(scores, outputs[:0], case.targets[:0], None)
    for name, score in scores.items():
        assert whole[name].shape == (score.size,)
        assert whole[name].dtype == np.float64
        np.testing.assert_allclose(whole[name], sum(total[name] for total in alone), rtol=1e-14)
        np.testing.assert_array_equal(none[name], nothing(scores)[name])
        assert score.value(none[name]) is None


@every_case
def test_what_is_taken_in_training_is_taken_in_validation_too(case: Case) -> None:
    scores = case.loss.scores(case.output_shape)
    assert {name: scores[name] for name in case.loss.training_scores(case.output_shape)} == dict(
        case.loss.training_scores(case.output_shape)
    )


@every_case
def test_the_layout_of_the_outputs_does_not_matter(case: Case) -> None:
    outputs = case.outputs()
    axes = np.asfortranarray(outputs)
    one, other = case.loss(outputs, case.targets), case.loss(axes, case.targets)
    assert one.loss == pytest.approx(other.loss, rel=1e-14)
    np.testing.assert_allclose(one.gradient, other.gradient, rtol=1e-14)


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


with np.load(Path(__file__).parents[2] / "references" / "losses.npz") as file:
    REFERENCES = dict(file)


@pytest.mark.parametrize(
    ("name", "loss", "weighs"),
    [
        ("cross_entropy", SoftmaxCrossEntropy(), 6),
        ("cross_entropy_weighted", SoftmaxCrossEntropy((0.5, 2.0, 1.25, 3.0)), None),
        ("cross_entropy_smoothed", SoftmaxCrossEntropy(label_smoothing=0.2), 6),
        ("cross_entropy_both", SoftmaxCrossEntropy((0.5, 2.0, 1.25, 3.0), 0.2), None),
        ("sequences", SoftmaxCrossEntropy(), 11),
        ("sequences_weighted", SoftmaxCrossEntropy((0.5, 2.0, 1.25, 3.0), 0.2), None),
        ("binary", BinaryCrossEntropy(), 6),
        ("binary_weighted", BinaryCrossEntropy(2.5), 6),
        ("squared", MeanSquaredError(), 6),
        ("absolute", MeanAbsoluteError(), 6),
        ("huber", Huber(0.8), 6),
        ("hinge_all", Hinge(Rivals.ALL), 6),
    ],
)
def test_is_what_pytorch_computes(name: str, loss: Loss, weighs: float | None) -> None:
    """The mean and its gradient, made by tests/references/make_losses.py."""
    outputs, targets = REFERENCES[f"{name}.outputs"], REFERENCES[f"{name}.targets"]
    judged = loss(outputs, targets)
    assert judged.loss / judged.weight == pytest.approx(float(REFERENCES[f"{name}.loss"]), rel=1e-12)
    np.testing.assert_allclose(judged.gradient / judged.weight, REFERENCES[f"{name}.gradient"], rtol=1e-10, atol=1e-14)
    assert weighs is None or judged.weight == weighs


@pytest.mark.parametrize(
    ("loss", "outputs", "target", "expected"),
    [
        (BinaryCrossEntropy(), [0.0], 1, np.log(2)),
        (BinaryCrossEntropy(), [np.log(3)], 1, np.log(4 / 3)),
        (BinaryCrossEntropy(), [-1e4], 1, 1e4),
        (BinaryCrossEntropy(2.0), [-1e4], 1, 2e4),
        (BinaryCrossEntropy(2.0), [1e4], 0, 1e4),
        (Hinge(), [0.25], 1, 0.75),
        (Hinge(), [0.25], 0, 1.25),
        (Hinge(), [1.5], 1, 0.0),
        (Hinge(), [2.0, 1.5, 1.25], 0, 0.5),
        (Hinge(Rivals.ALL), [2.0, 1.5, 1.25], 0, 0.75),
        (Huber(2.0), [3.0], 0, 4.0),
        (Huber(2.0), [1.0], 0, 0.5),
        (SoftmaxCrossEntropy((1.0, 0.0)), [3.0, 0.0], 1, 0.0),
    ],
)
def test_by_hand(loss: Loss, outputs: list[float], target: float, expected: float) -> None:
    assert loss(np.array([outputs]), np.array([target])).loss == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    ("loss", "field"),
    [
        (lambda: SoftmaxCrossEntropy(label_smoothing=1.0), "label_smoothing"),
        (lambda: SoftmaxCrossEntropy(label_smoothing=float("nan")), "label_smoothing"),
        (lambda: SoftmaxCrossEntropy((1.0, -1.0)), "class_weights"),
        (lambda: SoftmaxCrossEntropy((1.0, float("nan"))), "class_weights"),
        (lambda: SoftmaxCrossEntropy((0.0, 0.0)), "class_weights"),
        (lambda: SoftmaxCrossEntropy((1.0,) * 100_001), "class_weights"),
        (lambda: BinaryCrossEntropy(positive_weight=0.0), "positive_weight"),
        (lambda: BinaryCrossEntropy(label_smoothing=-0.1), "label_smoothing"),
        (lambda: Huber(0.0), "delta"),
        (lambda: Huber(float("inf")), "delta"),
    ],
)
def test_hyper_parameters_out_of_range(loss: Callable[[], Loss], field: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        loss()
    assert caught.value.field == field


def classes(low: float, high: float, *, integral: bool = True, row_shape: Shape = ()) -> TargetColumn:
    return TargetColumn(integral, row_shape, low, high)


def numbers(*row_shape: int) -> TargetColumn:
    return TargetColumn(integral=False, row_shape=row_shape, min=-1, max=1)


FITS: list[tuple[Loss, Shape, TargetColumn]] = [
    (SoftmaxCrossEntropy(), (5, 3), classes(-1, 2, row_shape=(5,))),
    (SoftmaxCrossEntropy(), (2, 2, 3), classes(0, 2, row_shape=(2, 2))),
    (SoftmaxCrossEntropy((1.0, 2.0, 0.0)), (3,), classes(0, 1)),
    (BinaryCrossEntropy(), (1,), classes(0, 1)),
    (BinaryCrossEntropy(), (4,), TargetColumn(integral=False, row_shape=(4,), min=0, max=1)),
    (MeanAbsoluteError(), (3,), numbers(3)),
    (Huber(), (1,), numbers()),
    (Hinge(), (1,), classes(-1, 1)),
    (Hinge(), (1,), numbers(1)),
    (Hinge(), (3,), classes(0, 2)),
    (SoftmaxCrossEntropy(), (3,), classes(0, 2)),
    (SoftmaxCrossEntropy(), (3,), classes(1, 1)),
    (MeanSquaredError(), (3,), numbers(3)),
    (MeanSquaredError(), (1,), numbers()),
    (MeanSquaredError(), (2, 2), numbers(2, 2)),
    (MeanSquaredError(), (1,), classes(0, 255)),
]

MISFITS: list[tuple[Loss, Shape, TargetColumn, str]] = [
    (SoftmaxCrossEntropy(), (5, 3), classes(-2, 2, row_shape=(5,)), "classes from -2 to 2"),
    (SoftmaxCrossEntropy(), (5, 3), classes(0, 2), "one class number a row of shape (5,)"),
    (SoftmaxCrossEntropy(), (), classes(0, 2), "at least 2, but the network ends in ()"),
    (BinaryCrossEntropy(), (1,), classes(0, 2), "from 0 to 2; binary cross-entropy needs 0 for no and 1 for yes"),
    (BinaryCrossEntropy(), (1,), classes(-1, 1), "from -1 to 1"),
    (BinaryCrossEntropy(), (2,), classes(0, 1), "but the network ends in (2,)"),
    (MeanAbsoluteError(), (3,), numbers(), "mean absolute error needs the same shape"),
    (Huber(), (3,), numbers(), "the Huber loss needs the same shape"),
    (Hinge(), (1,), classes(0, 2), "0 or 1, or -1 or 1"),
    (Hinge(), (3,), classes(-1, 1), "classes from -1 to 1"),
    (Hinge(), (3,), numbers(), "a column of integers"),
    (Hinge(), (2, 3), classes(0, 1), "the network ends in (2, 3)"),
    (SoftmaxCrossEntropy(), (3,), classes(0, 3), "classes from 0 to 3, but the network ends in 3 units"),
    (SoftmaxCrossEntropy(), (3,), classes(-1, 2), "classes from -1 to 2"),
    (SoftmaxCrossEntropy(), (3,), classes(0, 2, integral=False), "integers"),
    (SoftmaxCrossEntropy(), (3,), classes(0, 2, row_shape=(1,)), "one class number a row"),
    (SoftmaxCrossEntropy(), (3,), classes(0, 1, row_shape=(3,)), "one class number a row"),
    (SoftmaxCrossEntropy(), (1,), classes(0, 0), "at least 2, but the network ends in (1,)"),
    (SoftmaxCrossEntropy(), (2, 3), classes(0, 2), "one class number a row of shape (2,)"),
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


@pytest.mark.parametrize(
    ("weights", "column", "message"),
    [
        ((1.0, 2.0), classes(0, 2), "has 2 weights, but the network ends in 3 units"),
        ((1.0, 1.0, 1.0), classes(0, 1), "gives a weight to class 2, of which the dataset has no row"),
        (
            (1.0, 1.0, 1.0),
            TargetColumn(integral=True, row_shape=(), min=1, max=1, missing=(0,)),
            "gives a weight to classes 0, 2, of which",
        ),
    ],
)
def test_class_weights_that_do_not_fit(weights: tuple[float, ...], column: TargetColumn, message: str) -> None:
    with pytest.raises(InvalidValue, match=re.escape(message)) as caught:
        SoftmaxCrossEntropy(weights).check((3,), column)
    assert caught.value.field == "class_weights"
