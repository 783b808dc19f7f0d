"""Gradient descent, with and without momentum."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from service.training.optimizers.optimizer import Carried
from service.training.optimizers.ranges import require_decay
from worker.arrays import Array


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
    """velocity = momentum * velocity + gradient; params -= rate * velocity (Polyak 1964).

    With Nesterov's look ahead, params -= rate * (gradient + momentum * velocity): the step is taken with the gradient
    where the velocity leads to (Nesterov 1983; Sutskever et al. 2013, in the variables of Bengio et al. 2013).
    """

    momentum: float = 0.9
    nesterov: bool = False
    default_learning_rate: ClassVar[float] = 0.01
    carries: ClassVar[tuple[str, ...]] = ("velocity",)

    def __post_init__(self) -> None:
        require_decay("momentum", self.momentum)

    def update(self, params: Array, gradient: Array, carried: Carried, rate: float, step: int, scratch: Array) -> None:  # noqa: ARG002
        velocity = carried["velocity"]
        velocity *= self.momentum
        velocity += gradient
        if self.nesterov:
            np.multiply(velocity, self.momentum, out=scratch)
            scratch += gradient
            scratch *= rate
        else:
            np.multiply(velocity, rate, out=scratch)
        params -= scratch
