"""How the layers of a job fare, and what is wrong with its training: the events that tell of it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


@dataclass(frozen=True)
class LayerHealth:
    """How one layer fared in one step; what doesn't apply to it is None."""

    layer: str
    """Its name, or else its place: "layers.3", "layers.3.layers.0" within a block."""
    kind: str
    """As the field of the contract's layer is called: "dense"."""
    output_mean: float
    output_deviation: float
    gradient_norm: float | None = None
    """The length of the mean gradient over its parameters, before clipping."""
    parameter_norm: float | None = None
    """The length of its parameters, before the step."""
    update_ratio: float | None = None
    """The length of their change, divided by that."""
    dead_ratio: float | None = None
    """The share of units that were 0 for all rows of the mini-batch."""
    saturated_ratio: float | None = None
    """The share of outputs beyond which the curve has less than 5 % of its greatest slope."""


@dataclass(frozen=True)
class HealthSampled:
    """A look at the layers in one step, counted from 1."""

    step: int
    gradient_norm: float
    layers: tuple[LayerHealth, ...]
    straggler_ratio: float | None = None
    """How many times as long as the median the slowest worker took for a shard, since the look before."""
    kind: Literal["health_sampled"] = "health_sampled"


class Trouble(StrEnum):
    """What can be wrong with a training; the most telling first."""

    DIVERGENCE = "DIVERGENCE"
    EXPLODING_GRADIENT = "EXPLODING_GRADIENT"
    VANISHING_GRADIENT = "VANISHING_GRADIENT"
    DEAD_UNITS = "DEAD_UNITS"
    SATURATION = "SATURATION"
    LEARNING_RATE_TOO_HIGH = "LEARNING_RATE_TOO_HIGH"
    LEARNING_RATE_TOO_LOW = "LEARNING_RATE_TOO_LOW"
    OVERFITTING = "OVERFITTING"
    UNDERFITTING = "UNDERFITTING"
    PLATEAU = "PLATEAU"
    CLASS_IMBALANCE = "CLASS_IMBALANCE"
    STRAGGLERS = "STRAGGLERS"


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong, the figures that show it, and what can be done."""

    trouble: Trouble
    step: int
    evidence: str
    advice: str
    layer: str = ""
    """The layer in which it shows most, where it is about one."""
    measure: float = 0.0
    """How bad it is, by the figure that it is recognised by: the more, the worse. Only compared with its like."""


@dataclass(frozen=True)
class Diagnosed:
    """Something is wrong. Replaces an earlier diagnosis of the same trouble."""

    diagnosis: Diagnosis
    kind: Literal["diagnosed"] = "diagnosed"


@dataclass(frozen=True)
class Recovered:
    """Something that was wrong no longer is, after `step`."""

    trouble: Trouble
    step: int
    kind: Literal["recovered"] = "recovered"
