"""How an averaged gradient becomes an update.

An optimizer is a rule for one parameter at a time: it sees a slice of the parameters, of their gradient and of the
vectors it carries from step to step, and changes them in place. So it can be applied to any slice, in any order, on any
number of threads, with the same bits; and what it carries is plain arrays, so that a checkpoint is just data.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Protocol, TypeAlias

import numpy as np

from worker.arrays import Array
from worker.errors import InvalidValue

Carried: TypeAlias = Mapping[str, Array]
"""What an optimizer carries from step to step: vectors as long as the parameters, by name. They start at zero."""


class Optimizer(Protocol):
    """A rule. Implementations are frozen dataclasses of hyper-parameters."""

    default_learning_rate: ClassVar[float]
    carries: ClassVar[tuple[str, ...]]
    """The names of the vectors it carries."""

    def update(self, params: Array, gradient: Array, carried: Carried, rate: float, step: int, scratch: Array) -> None:
        """Takes step number `step`, counted from 0, with learning rate `rate`, in place.

        All arrays are (n,), slices of the same place. `gradient` and `scratch` may be overwritten.
        """


@dataclass(frozen=True)
class Sgd:
    """params -= rate * gradient (Robbins and Monro 1951)."""

    default_learning_rate: ClassVar[float] = 0.01
    carries: ClassVar[tuple[str, ...]] = ()

    def update(self, params: Array, gradient: Array, carried: Carried, rate: float, step: int, scratch: Array) -> None:  # noqa: ARG002
        gradient *= rate
        params -= gradient


@dataclass(frozen=True)
class Momentum:
    """velocity = momentum * velocity + gradient; params -= rate * velocity (Polyak 1964)."""

    momentum: float = 0.9
    default_learning_rate: ClassVar[float] = 0.01
    carries: ClassVar[tuple[str, ...]] = ("velocity",)

    def __post_init__(self) -> None:
        _require_decay("momentum", self.momentum)

    def update(self, params: Array, gradient: Array, carried: Carried, rate: float, step: int, scratch: Array) -> None:  # noqa: ARG002
        velocity = carried["velocity"]
        velocity *= self.momentum
        velocity += gradient
        np.multiply(velocity, rate, out=scratch)
        params -= scratch


@dataclass(frozen=True)
class Adam:
    """Adaptive moments (Kingma and Ba 2015, algorithm 1).

    m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2, and with t steps done, this one included,
    params -= rate (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon).
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    default_learning_rate: ClassVar[float] = 0.001
    carries: ClassVar[tuple[str, ...]] = ("m", "v")

    def __post_init__(self) -> None:
        _require_decay("beta1", self.beta1)
        _require_decay("beta2", self.beta2)
        if not is_positive_single(self.epsilon):
            raise InvalidValue("epsilon", f"is {self.epsilon:g}; must be above 0, and {SINGLE}")

    def update(self, params: Array, gradient: Array, carried: Carried, rate: float, step: int, scratch: Array) -> None:
        t = step + 1
        m, v = carried["m"], carried["v"]
        # m and v are kept without the factors 1 - beta, which then act once on a number instead of on vectors.
        root = math.sqrt((1 - self.beta2) / (1 - self.beta2**t))
        m *= self.beta1
        m += gradient
        v *= self.beta2
        np.multiply(gradient, gradient, out=gradient)
        v += gradient
        np.sqrt(v, out=scratch)
        scratch += self.epsilon / root
        np.divide(m, scratch, out=scratch)
        scratch *= rate * (1 - self.beta1) / (1 - self.beta1**t) / root
        params -= scratch


OPTIMIZERS: Mapping[str, type[Optimizer]] = MappingProxyType({"sgd": Sgd, "momentum": Momentum, "adam": Adam})


SINGLE = "between 1e-37 and 1e38, since parameters are in single precision"
"""What is to be said of a value that `is_positive_single` refuses."""


def is_positive_single(value: float) -> bool:
    """Whether a number is above 0 and stays a number above 0 in single precision, with digits to spare."""
    return 1e-37 <= value <= 1e38


def _require_decay(field: str, value: float) -> None:
    if not 0 <= value < 1:
        raise InvalidValue(field, f"is {value:g}; must be 0 up to, but not including, 1")
