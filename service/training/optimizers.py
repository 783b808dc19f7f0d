"""How an averaged gradient becomes an update.

An optimizer is a pure function: state goes in and comes out as plain arrays by name, so that a checkpoint is just data
(the form is optax's). It gives a direction; the trainer multiplies by the learning rate and subtracts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Protocol, TypeAlias

import numpy as np

from worker.arrays import Array
from worker.errors import InvalidValue

OptimizerState: TypeAlias = Mapping[str, Array]
"""What an optimizer carries from step to step: vectors as long as the parameters, by name."""


class Optimizer(Protocol):
    """A rule. Implementations are frozen dataclasses of hyper-parameters."""

    default_learning_rate: ClassVar[float]

    def init(self, params: Array) -> OptimizerState:
        """The state before the first step."""

    def direction(self, gradient: Array, state: OptimizerState, step: int) -> tuple[Array, OptimizerState]:
        """The direction to go against, and the next state, for step number `step`, counted from 0."""


@dataclass(frozen=True)
class Sgd:
    """Plain stochastic gradient descent: the direction is the gradient (Robbins and Monro 1951)."""

    default_learning_rate: ClassVar[float] = 0.01

    def init(self, params: Array) -> OptimizerState:  # noqa: ARG002 - nothing to carry
        return {}

    def direction(self, gradient: Array, state: OptimizerState, step: int) -> tuple[Array, OptimizerState]:  # noqa: ARG002
        return gradient, state


@dataclass(frozen=True)
class Momentum:
    """velocity = momentum * velocity + gradient, and the velocity is the direction (Polyak 1964)."""

    momentum: float = 0.9
    default_learning_rate: ClassVar[float] = 0.01

    def __post_init__(self) -> None:
        _require_decay("momentum", self.momentum)

    def init(self, params: Array) -> OptimizerState:
        return {"velocity": np.zeros_like(params)}

    def direction(self, gradient: Array, state: OptimizerState, step: int) -> tuple[Array, OptimizerState]:  # noqa: ARG002
        velocity = self.momentum * state["velocity"] + gradient
        return velocity, {"velocity": velocity}


@dataclass(frozen=True)
class Adam:
    """Adaptive moments (Kingma and Ba 2015, algorithm 1).

    m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2, and with t steps done, this one included,
    direction = (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon).
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    default_learning_rate: ClassVar[float] = 0.001

    def __post_init__(self) -> None:
        _require_decay("beta1", self.beta1)
        _require_decay("beta2", self.beta2)
        if not is_positive_single(self.epsilon):
            raise InvalidValue("epsilon", f"is {self.epsilon:g}; must be above 0, and {SINGLE}")

    def init(self, params: Array) -> OptimizerState:
        return {"m": np.zeros_like(params), "v": np.zeros_like(params)}

    def direction(self, gradient: Array, state: OptimizerState, step: int) -> tuple[Array, OptimizerState]:
        t = step + 1
        m = self.beta1 * state["m"] + (1 - self.beta1) * gradient
        v = self.beta2 * state["v"] + (1 - self.beta2) * np.square(gradient)
        direction = (m / (1 - self.beta1**t)) / (np.sqrt(v / (1 - self.beta2**t)) + self.epsilon)
        return direction, {"m": m, "v": v}


OPTIMIZERS: Mapping[str, type[Optimizer]] = MappingProxyType({"sgd": Sgd, "momentum": Momentum, "adam": Adam})


SINGLE = "between 1e-37 and 1e38, since parameters are in single precision"
"""What is to be said of a value that `is_positive_single` refuses."""


def is_positive_single(value: float) -> bool:
    """Whether a number is above 0 and stays a number above 0 in single precision, with digits to spare."""
    return 1e-37 <= value <= 1e38


def _require_decay(field: str, value: float) -> None:
    if not 0 <= value < 1:
        raise InvalidValue(field, f"is {value:g}; must be 0 up to, but not including, 1")
