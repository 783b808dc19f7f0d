"""What is done to an averaged gradient before the optimizer sees it: clipped, and drawn towards small weights.

It acts once an update, on the mean over all rows, so that it knows nothing of shards; and on one slice at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.training.optimizers.ranges import require_positive, require_zero_or_positive
from worker.arrays import Array


@dataclass(frozen=True)
class Regularization:
    """In this order: clip the norm, clip the values, add the penalties' gradients, decay the weights.

    Weights are the parameters of two or more axes: biases and the scales and shifts of normalisation, which are
    vectors, are neither penalised nor decayed. The loss that is reported is that of the data alone.
    """

    clip_norm: float | None = None
    """The gradient g of all parameters together is scaled to at most this length: g min(1, clip_norm / |g|) (Pascanu,
    Mikolov and Bengio 2013, algorithm 1)."""
    clip_value: float | None = None
    """Every element is then held within +-clip_value."""
    l1: float = 0.0
    """Adds l1 |w| to the loss: l1 sign(w) to the gradient, 0 at 0 (Tibshirani 1996)."""
    l2: float = 0.0
    """Adds l2 w^2 / 2 to the loss: l2 w to the gradient, as what PyTorch calls weight_decay in SGD and Adam."""
    weight_decay: float = 0.0
    """w -= rate weight_decay w, beside the optimizer's step (Loshchilov and Hutter 2019)."""

    def __post_init__(self) -> None:
        for field, limit in (("clip_norm", self.clip_norm), ("clip_value", self.clip_value)):
            if limit is not None:
                require_positive(field, limit)
        for field, strength in (("l1", self.l1), ("l2", self.l2), ("weight_decay", self.weight_decay)):
            require_zero_or_positive(field, strength)

    @property
    def penalises(self) -> bool:
        """Whether it acts on weights otherwise than on other parameters."""
        return bool(self.l1 or self.l2 or self.weight_decay)

    def scale(self, norm: float) -> float:
        """What a gradient of that length is multiplied by."""
        return 1.0 if self.clip_norm is None or norm <= self.clip_norm else self.clip_norm / norm

    def prepare(
        self, params: Array, gradient: Array, weights: Sequence[slice], scale: float, rate: float, scratch: Array
    ) -> None:
        """Acts in place on a slice (n,), of which `weights` are the parts that belong to weights."""
        if scale != 1:
            gradient *= scale
        if self.clip_value is not None:
            np.clip(gradient, -self.clip_value, self.clip_value, out=gradient)
        for part in weights:
            own, pull = params[part], scratch[part]
            if self.l2:
                np.multiply(own, self.l2, out=pull)
                gradient[part] += pull
            if self.l1:
                np.sign(own, out=pull)
                pull *= self.l1
                gradient[part] += pull
            if self.weight_decay:
                own *= 1 - rate * self.weight_decay
