"""Scores: one file an idea, and which of them go with which outputs."""

import math
from types import MappingProxyType

from worker.arrays import Shape
from worker.scores.binary import Auc, BinaryAccuracy, BinaryConfusion, BinaryF1
from worker.scores.classes import Accuracy, Confusion, MacroF1, TopAccuracy
from worker.scores.numbers import R2, MeanAbsolute, RootMeanSquared
from worker.scores.score import NONE, Score, Scores, counted, nothing, ratio, sizes, values

CONFUSION = "confusion"
COSTS = frozenset({"mae", "rmse"})
"""Those that are errors: the less, the better."""

MOST_CONFUSED, MOST_AVERAGED, MOST_ELEMENTS = 100, 1_000, 100
"""Classes that a confusion matrix has at the most; classes that F1 is the mean over; elements that R2 is."""

ACCURACY: Scores = MappingProxyType({"accuracy": Accuracy()})
BINARY_ACCURACY: Scores = MappingProxyType({"accuracy": BinaryAccuracy()})


def class_scores(output_shape: Shape) -> Scores:
    """The scores of one of several classes, for rows of outputs (..., classes)."""
    classes = output_shape[-1]
    scores: dict[str, Score] = {"accuracy": Accuracy()}
    if classes > 5:
        scores["top_5_accuracy"] = TopAccuracy(5)
    if classes <= MOST_AVERAGED:
        scores["f1"] = MacroF1(classes)
    if output_shape == (2,):
        scores["auc"] = Auc()
    if classes <= MOST_CONFUSED:
        scores[CONFUSION] = Confusion(classes)
    return scores


def binary_scores(outputs: int) -> Scores:
    """The scores of yes or no, for rows of so many outputs."""
    scores: dict[str, Score] = {"accuracy": BinaryAccuracy()}
    if outputs <= MOST_AVERAGED:
        scores["f1"] = BinaryF1(outputs)
    if outputs == 1:
        scores |= {"auc": Auc(), CONFUSION: BinaryConfusion()}
    return scores


def number_scores(output_shape: Shape) -> Scores:
    """The scores of numbers, for rows of outputs of this shape."""
    elements = math.prod(output_shape)
    scores: dict[str, Score] = {"mae": MeanAbsolute(), "rmse": RootMeanSquared()}
    if elements <= MOST_ELEMENTS:
        scores["r2"] = R2(elements)
    return scores


__all__ = [
    "ACCURACY",
    "BINARY_ACCURACY",
    "CONFUSION",
    "COSTS",
    "NONE",
    "R2",
    "Accuracy",
    "Auc",
    "BinaryAccuracy",
    "BinaryConfusion",
    "BinaryF1",
    "Confusion",
    "MacroF1",
    "MeanAbsolute",
    "RootMeanSquared",
    "Score",
    "Scores",
    "TopAccuracy",
    "binary_scores",
    "class_scores",
    "counted",
    "nothing",
    "number_scores",
    "ratio",
    "sizes",
    "values",
]
