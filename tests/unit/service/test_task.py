"""Whether a specification and a dataset fit together."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from service.data.columns import describe
from service.data.datasets import Dataset
from service.errors import InvalidArgument
from service.jobs.spec import JobSpec, Precision
from service.training.optimizers import Adam
from service.training.schedules import ReduceOnPlateau, Schedule
from service.training.stopping import EarlyStopping
from service.training.task import make_task, memory_bytes, remark
from tests.unit.service.examples import FEATURES, INPUTS, NOON, SPEC, TARGETS, spec, task
from worker.arrays import Array
from worker.feedback import CreditAssignment
from worker.layers import Concatenate, Dense, Quantum, ReLU, Residual, Stack
from worker.losses import BinaryCrossEntropy, Hinge, MeanSquaredError, SoftmaxCrossEntropy


def dataset(**columns: Array) -> Dataset:
    described = tuple(describe(name, array) for name, array in columns.items())
    return Dataset("flowers", len(next(iter(columns.values()))), described, 1, "", NOON + timedelta())


FLOWERS = dataset(x=INPUTS, y=TARGETS)


def changed(name: str, place: Any, value: float, dtype: type = np.float64) -> Dataset:
    """The flowers with one element changed."""
    columns: dict[str, Array] = {"x": INPUTS.astype(dtype), "y": TARGETS.astype(dtype)}
    columns[name][place] = value
    return dataset(**columns)


def with_classes(*classes: int) -> Dataset:
    return dataset(x=INPUTS, y=np.resize(classes, len(TARGETS)))


def weighted(*weights: float) -> Dataset:
    return dataset(x=INPUTS, y=TARGETS, w=np.resize(weights, len(TARGETS)))


REGRESSION = spec(loss=MeanSquaredError())

INPUT, TARGET, LAYERS = "data.input_column", "data.target_column", "network.layers"
WEIGHT = "data.weight_column"
DENSE = "dense takes rows of shape (..., features), but rows of shape "

CLASS_WEIGHTS = "loss.softmax_cross_entropy.class_weights"

MISFITS: list[tuple[JobSpec, Dataset, str, str]] = [
    (spec(loss=SoftmaxCrossEntropy((1.0, 2.0))), FLOWERS, CLASS_WEIGHTS, "has 2 weights, but the network ends in 3"),
    (
        spec(loss=SoftmaxCrossEntropy((1.0, 2.0, 3.0))),
        with_classes(0, 2),
        CLASS_WEIGHTS,
        "gives a weight to class 1, of which the dataset has no row; give 0 to",
    ),
    (
        spec(loss=BinaryCrossEntropy(), layers=(Dense(1),)),
        with_classes(0, 1, 2),
        TARGET,
        "'y': has values from 0 to 2; binary cross-entropy needs 0 for no and 1 for yes",
    ),
    (spec(input_column="z"), FLOWERS, INPUT, "is 'z', which datasets/flowers doesn't have; its columns: 'x', 'y'"),
    (spec(target_column=""), FLOWERS, TARGET, "is '', which datasets/flowers doesn't have"),
    (spec(), changed("x", (3, 2), np.nan), INPUT, "'x' has 1 elements that are NaN or infinite; upload it"),
    (REGRESSION, changed("y", 3, np.inf), TARGET, "'y' has 1 elements that are NaN or infinite; upload it"),
    (spec(), changed("x", (3, 2), -1e39), INPUT, "'x' has elements from -1e+39 to "),
    (REGRESSION, changed("y", 3, 1e39), TARGET, "'y' has elements from 0 to 1e+39; must be within 3.40282e+38"),
    (
        spec(),
        with_classes(0, 1, 3),
        TARGET,
        "'y': has classes from 0 to 3, but the network ends in 3 units, which is for ",
    ),
    (spec(), with_classes(-1, 2), TARGET, "'y': has classes from -1 to 2, but the network ends in 3 units"),
    (spec(), changed("y", 0, 1), TARGET, "'y': softmax cross-entropy needs a column of integers"),
    (spec(), changed("y", 0, 1, bool), TARGET, "'y': softmax cross-entropy needs a column of integers"),
    (spec(), dataset(x=INPUTS, y=TARGETS[:, np.newaxis]), TARGET, "'y': softmax cross-entropy needs"),
    (spec(layers=(Dense(1),)), FLOWERS, TARGET, "'y': softmax cross-entropy needs one logit a class, at least 2"),
    (REGRESSION, FLOWERS, TARGET, "'y': has rows of shape (), but the network ends in (3,); mean squared error"),
    (
        spec(),
        dataset(x=INPUTS.reshape(30, 2, 2), y=TARGETS),
        TARGET,
        "'y': softmax cross-entropy needs a column of integers, one class number a row of shape (2,), since the "
        "network ends in (2, 3); this one has rows of shape (); put a flatten layer in front if a row has one class",
    ),
    (
        spec(layers=(ReLU(), Dense(3))),
        dataset(x=TARGETS, y=TARGETS),
        "network.layers[1].dense",
        DENSE + "() reach it",
    ),
    (
        spec(layers=(Dense(3), Residual((ReLU(), Dense(4))))),
        FLOWERS,
        "network.layers[1].residual",
        "its layers turn rows of shape (3,) into (4,), which can't be added to the (3,) that entered; give a proj",
    ),
    (
        spec(layers=(Concatenate((Stack(), Stack((Residual((ReLU(),), (Dense(2),)),)))),)),
        FLOWERS,
        "network.layers[0].concatenate.branches[1].layers[0].residual",
        "its layers turn rows of shape (4,) into (4,), which can't be added to the (2,) that the projection makes of",
    ),
    (spec(weight_column="w"), FLOWERS, WEIGHT, "is 'w', which datasets/flowers doesn't have"),
    (spec(weight_column="x"), FLOWERS, WEIGHT, "'x' has rows of shape (4,); weights are one number a row"),
    (spec(weight_column="w"), weighted(-0.5, 1), WEIGHT, "'w' has weights from -0.5; none may be below 0"),
    (spec(weight_column="w"), weighted(0.0), WEIGHT, "'w' has weights that are all 0, so that no row would count"),
    (
        spec(layers=(Dense(3), Residual((Dense(3),))), credit_assignment=CreditAssignment.FEEDBACK_ALIGNMENT),
        FLOWERS,
        "network.layers[1].residual",
        "can't be trained by FEEDBACK_ALIGNMENT, which is for dense layers and what may stand between them",
    ),
    (
        spec(
            layers=(Dense(100_000), Dense(1), Dense(1001)),
            credit_assignment=CreditAssignment.DIRECT_FEEDBACK_ALIGNMENT,
        ),
        FLOWERS,
        "credit_assignment",
        "is DIRECT_FEEDBACK_ALIGNMENT, for which this network needs 100,101,001 random numbers; must be at most 100,0",
    ),
    (spec(layers=(ReLU(),)), FLOWERS, LAYERS, "has no parameters, so that there is nothing to learn"),
    (
        spec(layers=(Dense(1_000_000), Dense(101), Dense(3))),
        FLOWERS,
        LAYERS,
        "has 106,000,407 parameters in all; must have at most 100,000,000",
    ),
    (
        spec(layers=(Dense(100_000), Dense(3)), batch_size=1024, shards=1024),
        FLOWERS,
        "shards",
        "is 1024, each with a gradient of 800,003 numbers that are gathered before they are added; must be at most 624",
    ),
    (
        spec(layers=(Dense(10_000), ReLU(), Dense(3)), batch_size=50_000, shards=2),
        FLOWERS,
        LAYERS,
        "makes 500,175,000 numbers for the 25,000 rows of a shard; must be at most 250,000,000",
    ),
    (
        spec(layers=(Dense(8), Residual((Quantum(8, 8),)), Dense(3)), batch_size=40_000, shards=2),
        FLOWERS,
        "network.layers[1].residual.layers[0].quantum",
        "has 8 qubits and depth 8, which takes 190,095,360,000 operations for the 20,000 rows of a shard; all",
    ),
    (
        spec(),
        dataset(x=INPUTS[:1], y=TARGETS[:1]),
        "data.validation_fraction",
        "must be 0, since the dataset has a single row",
    ),
    (
        spec(early_stopping=EarlyStopping(score="luck")),
        FLOWERS,
        "early_stopping.score",
        "is 'luck'; the scores that come with this loss: accuracy",
    ),
    (
        replace(REGRESSION, layers=(Dense(1),), early_stopping=EarlyStopping(score="accuracy")),
        FLOWERS,
        "early_stopping.score",
        "is 'accuracy'; the scores that come with this loss: mae, rmse, r2",
    ),
    (
        spec(early_stopping=EarlyStopping(), validation_fraction=0.001),
        FLOWERS,
        "data.validation_fraction",
        "holds out no row of this dataset, but the job depends on such rows",
    ),
    (
        spec(schedule=Schedule(ReduceOnPlateau()), validation_fraction=0.001),
        FLOWERS,
        "data.validation_fraction",
        "holds out no row of this dataset, but the job depends on such rows",
    ),
]


@pytest.mark.parametrize(
    ("of", "data", "field", "told"), MISFITS, ids=[f"{field}: {told[:40]}" for *_, field, told in MISFITS]
)
def test_what_does_not_fit_is_named(of: JobSpec, data: Dataset, field: str, told: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        make_task(of, data, "job.spec")
    first = refused.value.violations[0]
    assert first.field == f"job.spec.{field}"
    assert first.description.startswith(told)


def test_all_that_does_not_fit_is_named_at_once() -> None:
    with pytest.raises(InvalidArgument) as refused:
        make_task(spec(target_column="z", layers=(Dense(1_000_000), Dense(1_000_000))), FLOWERS, "spec")
    assert [v.field for v in refused.value.violations] == ["spec.data.target_column", "spec.network.layers"]


@pytest.mark.parametrize(
    ("of", "data"),
    [
        (SPEC, FLOWERS),
        (SPEC, dataset(x=INPUTS, y=TARGETS.astype(np.uint8))),
        (SPEC, dataset(x=INPUTS > 0, y=TARGETS)),
        (SPEC, with_classes(0, 1)),
        (spec(validation_fraction=0.0), dataset(x=INPUTS[:1], y=TARGETS[:1])),
        (spec(validation_fraction=0.99), dataset(x=INPUTS[:2], y=TARGETS[:2])),
        (spec(credit_assignment=CreditAssignment.DIRECT_FEEDBACK_ALIGNMENT), FLOWERS),
        (REGRESSION, dataset(x=INPUTS, y=np.zeros((30, 3)))),
        (replace(REGRESSION, layers=(Dense(1),)), FLOWERS),
        (replace(REGRESSION, layers=(Dense(FEATURES), ReLU()), target_column="x"), FLOWERS),
        (spec(batch_size=10**6, shards=1024), FLOWERS),
        (spec(precision=Precision.FLOAT64), dataset(x=INPUTS.astype(np.float64) * 1e300, y=TARGETS)),
        (spec(early_stopping=EarlyStopping(score="accuracy")), FLOWERS),
    ],
)
def test_what_fits(of: JobSpec, data: Dataset) -> None:
    made = make_task(of, data, "spec")
    assert made == task(of, data.rows)


def test_the_memory_is_that_of_all_vectors() -> None:
    """Parameters, mean, three shards, and what the optimizer carries; and the sum that is pending."""
    size = task().network.size
    scores = memory_bytes(task(), SPEC) - 4 * size * 6
    assert scores > 0  # their sums, beside the slots
    double = spec(optimizer=Adam(), accumulate=2, precision=Precision.FLOAT64)
    assert memory_bytes(task(), double) == 8 * size * 8 + scores


@pytest.mark.parametrize(
    ("of", "data", "said"),
    [
        (spec(), with_classes(0, 1, 2), ""),
        (spec(), with_classes(0, 1), "the dataset has no row of class 2, which can't be learned"),
        (spec(), with_classes(1), "the dataset has no row of classes 0, 2, which can't be learned"),
        (spec(layers=(Dense(20),)), with_classes(0), "the dataset has no row of classes 1, 2, 3, 4, 5, 6, 7, 8, 9, 10"),
        (REGRESSION, with_classes(0, 2), ""),
        (spec(loss=Hinge(), layers=(Dense(1),)), with_classes(-1, 1), ""),
        (spec(loss=Hinge()), with_classes(0, 2), "the dataset has no row of class 1"),
    ],
)
def test_classes_without_a_row_are_remarked(of: JobSpec, data: Dataset, said: str) -> None:
    assert remark(of, data).startswith(said)
    assert bool(remark(of, data)) == bool(said)


def test_a_weight_of_zero_is_no_wish_to_learn_the_class() -> None:
    make_task(spec(loss=SoftmaxCrossEntropy((1.0, 0.0, 3.0))), with_classes(0, 2), "spec")
