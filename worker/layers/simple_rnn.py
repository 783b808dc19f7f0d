"""The simplest recurrent layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from worker.arrays import Array, Rows
from worker.initializers import Initializer
from worker.layers.layer import Parameter, Params
from worker.layers.recurrent import Recurrent, StatesBackward, joined
from worker.layers.tiles import Tiles


class RecurrentActivation(Enum):
    """What bends the state."""

    TANH = "tanh"
    RELU = "relu"


@dataclass(frozen=True)
class SimpleRnn(Recurrent):
    """h_t = f(x_t W + h_{t-1} U + b), with f = tanh or max(., 0) (Elman 1990, "Finding structure in time").

    W (features, units), U (units, units), b (units,).
    """

    activation: RecurrentActivation = RecurrentActivation.TANH

    def _parameters(self, features: int) -> Mapping[str, Parameter]:
        return {**self._matrices(features, 1), "bias": Parameter((self.units,), Initializer.ZEROS)}

    def _read(
        self, params: Params, x: Array, still: Sequence[Rows], *, input_gradient: bool
    ) -> tuple[Array, StatesBackward]:
        time, rows, features = x.shape
        both, h = joined(x, self.units)
        stacked = np.concatenate([params["weight"], params["recurrent_weight"], params["bias"][np.newaxis]])
        bent = self.activation is RecurrentActivation.TANH
        of_places = Tiles.of(stacked, rows)
        places, products = of_places.left(both), of_places.out(h)
        for t in range(time):
            np.matmul(places[t], of_places.right, out=products[t + 1])
            if bent:
                np.tanh(h[t + 1], out=h[t + 1])
            else:
                np.maximum(h[t + 1], 0, out=h[t + 1])
            h[t + 1, still[t]] = h[t, still[t]]

        def backward(dy: Array, grads: Params) -> Array | None:
            """With dz = dh f'(z): dh_{t-1} = dz U^T, and the gradients are sums over time of [x_t, h_{t-1}, 1]^T dz."""
            dz = np.empty((time, rows, self.units), x.dtype)
            dh = np.zeros((rows, self.units), x.dtype)
            back = Tiles.of(params["recurrent_weight"].T, rows)
            places, product = back.left(dz), back.out(dh)
            for t in reversed(range(time)):
                if (given := t - time + len(dy)) >= 0:
                    dh += dy[given]
                carried = dh[still[t]]
                np.multiply(dh, 1 - h[t + 1] * h[t + 1] if bent else h[t + 1] > 0, out=dz[t])
                dz[t, still[t]] = 0
                np.matmul(places[t], back.right, out=product)
                dh[still[t]] = carried
            flat = dz.reshape(time * rows, self.units)
            gradient = both[:-1].reshape(time * rows, both.shape[2]).T @ flat
            grads["weight"][...] = gradient[:features]
            grads["recurrent_weight"][...] = gradient[features:-1]
            grads["bias"][...] = gradient[-1]
            if not input_gradient:
                return None
            dx, front = np.empty(x.shape, x.dtype), Tiles.of(params["weight"].T, rows)
            np.matmul(front.left(dz), front.right, out=front.out(dx))
            return dx

        return h[1:], backward
