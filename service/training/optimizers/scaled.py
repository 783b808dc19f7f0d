"""Descent with a step for each parameter that its own past gradients scale, without Adam's first moment."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from service.training.optimizers.optimizer import Carried
from service.training.optimizers.ranges import require_decay, require_positive
from worker.arrays import Array


@dataclass(frozen=True)
class Adagrad:
    """squares += gradient^2; params -= rate * gradient / (sqrt(squares) + epsilon) (Duchi, Hazan and Singer 2011).

    What is seldom touched keeps large steps; all steps shrink, and never grow again.
    """

    epsilon: float = 1e-10
    default_learning_rate: ClassVar[float] = 0.01
    carries: ClassVar[tuple[str, ...]] = ("squares",)

    def __post_init__(self) -> None:
        require_positive("epsilon", self.epsilon)

    def update(self, params: Array, gradient: Array, carried: Carried, rate: float, step: int, scratch: Array) -> None:  # noqa: ARG002
        squares = carried["squares"]
        np.multiply(gradient, gradient, out=scratch)
        squares += scratch
        np.sqrt(squares, out=scratch)
        scratch += self.epsilon
        np.divide(gradient, scratch, out=scratch)
        scratch *= rate
        params -= scratch


@dataclass(frozen=True)
class RMSprop:
    """v = decay v + (1 - decay) g^2; params -= rate g / (sqrt(v) + epsilon) (Tieleman and Hinton 2012, lecture 6.5).

    Centred, the variance v - mean^2 takes the place of v, with mean = decay mean + (1 - decay) g (Graves 2013, eq. 38
    to 45). With momentum, velocity = momentum velocity + g / (...), and params -= rate velocity.
    """

    decay: float = 0.99
    epsilon: float = 1e-8
    momentum: float = 0.0
    centered: bool = False
    default_learning_rate: ClassVar[float] = 0.01

    def __post_init__(self) -> None:
        require_decay("decay", self.decay)
        require_positive("epsilon", self.epsilon)
        require_decay("momentum", self.momentum)

    @property
    def carries(self) -> tuple[str, ...]:
        return ("v", *(["mean"] if self.centered else []), *(["velocity"] if self.momentum else []))

    def update(self, params: Array, gradient: Array, carried: Carried, rate: float, step: int, scratch: Array) -> None:  # noqa: ARG002
        v = carried["v"]
        # As in Adam, v and mean are kept without the factor 1 - decay.
        root = math.sqrt(1 - self.decay)
        np.multiply(gradient, gradient, out=scratch)
        v *= self.decay
        v += scratch
        if self.centered:
            mean = carried["mean"]
            mean *= self.decay
            mean += gradient
            np.multiply(mean, mean, out=scratch)
            scratch *= self.decay - 1
            scratch += v
            np.maximum(scratch, 0, out=scratch)  # which rounding may take it below
            np.sqrt(scratch, out=scratch)
        else:
            np.sqrt(v, out=scratch)
        scratch += self.epsilon / root
        np.divide(gradient, scratch, out=scratch)
        if self.momentum:
            velocity = carried["velocity"]
            velocity *= self.momentum
            velocity += scratch
            np.copyto(scratch, velocity)
        scratch *= rate / root
        params -= scratch
