"""Adaptive moments."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from service.training.optimizers.optimizer import Carried
from service.training.optimizers.ranges import require_decay, require_positive, require_zero_or_positive
from worker.arrays import Array


@dataclass(frozen=True)
class Adam:
    """Adaptive moments (Kingma and Ba 2015, algorithm 1).

    m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2, and with t updates made, this one included,
    params -= rate (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon).
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    default_learning_rate: ClassVar[float] = 0.001
    carries: ClassVar[tuple[str, ...]] = ("m", "v")

    def __post_init__(self) -> None:
        require_decay("beta1", self.beta1)
        require_decay("beta2", self.beta2)
        require_positive("epsilon", self.epsilon)

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


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2).

    The decay, weights -= rate * weight_decay * weights, is not this rule's doing but Regularization's, which knows
    which parameters are weights.
    """

    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        require_zero_or_positive("weight_decay", self.weight_decay)
