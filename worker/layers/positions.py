"""Where in a sequence something is, told to layers that can't see it themselves, such as attention."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from worker.arrays import Array, Shape
from worker.initializers import Initializer
from worker.layers.layer import Backward, Context, Parameter, Params
from worker.layers.recurrent import LONGEST, sequence


@dataclass(frozen=True)
class PositionalEncoding:
    """y = x + p, for x (rows, time, features) and p (time, features), either waves or `learned`.

    The waves are p[t, 2i] = sin(t / 10000^(2i / features)) and p[t, 2i + 1] = cos of the same (Vaswani et al. 2017,
    section 3.5). What is learned starts with a standard deviation of 0.02 (Devlin et al. 2019, BERT) and is called
    `position`.
    """

    learned: bool = False

    def output_shape(self, input_shape: Shape) -> Shape:
        sequence(input_shape, "a positional encoding", LONGEST)
        return input_shape

    def parameters(self, input_shape: Shape) -> Mapping[str, Parameter]:
        # LeCun's rule gives the variance 1 / fan_in = 0.02^2.
        return {"position": Parameter(input_shape, Initializer.LECUN_NORMAL, fan_in=2500)} if self.learned else {}

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:  # noqa: ARG002
        y = x + (params["position"] if self.learned else waves(x.shape[1], x.shape[2]).astype(x.dtype))

        def backward(dy: Array, grads: Params) -> Array:
            if self.learned:
                np.add.reduce(dy, axis=0, out=grads["position"])
            return dy

        return y, backward


def waves(time: int, features: int) -> Array:
    """p (time, features)."""
    angles = np.arange(time)[:, np.newaxis] / 10_000 ** (np.arange(0, features, 2) / features)
    p = np.empty((time, features))
    p[:, ::2] = np.sin(angles)
    p[:, 1::2] = np.cos(angles[:, : features // 2])
    return p
