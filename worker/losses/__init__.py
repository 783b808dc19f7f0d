"""What the training minimises: one file an idea, and the table of them all."""

from collections.abc import Mapping
from types import MappingProxyType

from worker.losses.binary import BinaryCrossEntropy
from worker.losses.differences import Huber, MeanAbsoluteError, MeanSquaredError
from worker.losses.hinge import Hinge, Rivals
from worker.losses.loss import Judged, Loss, TargetColumn
from worker.losses.softmax import SoftmaxCrossEntropy, missing_classes, named

LOSSES: Mapping[str, type[Loss]] = MappingProxyType(
    {
        "softmax_cross_entropy": SoftmaxCrossEntropy,
        "mean_squared_error": MeanSquaredError,
        "binary_cross_entropy": BinaryCrossEntropy,
        "mean_absolute_error": MeanAbsoluteError,
        "huber": Huber,
        "hinge": Hinge,
    }
)
"""By the name of the contract's field."""

__all__ = [
    "LOSSES",
    "BinaryCrossEntropy",
    "Hinge",
    "Huber",
    "Judged",
    "Loss",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Rivals",
    "SoftmaxCrossEntropy",
    "TargetColumn",
    "missing_classes",
    "named",
]
