"""Long short-term memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from worker.arrays import Array, Rows, aligned
from worker.initializers import Initializer
from worker.layers.layer import Parameter, Params
from worker.layers.recurrent import Recurrent, StatesBackward, joined
from worker.layers.tiles import Tiles

AT_A_TIME = 10
"""Places whose dz lie in the cache until the gradients are taken of them (measured: docs/architecture.md)."""


@dataclass(frozen=True)
class Lstm(Recurrent):
    """Gates decide what a cell forgets, what enters it and what of it is seen (Hochreiter and Schmidhuber 1997; with
    the forget gate of Gers, Schmidhuber and Cummins 2000):

        [f, i, o] = sigmoid([x_t, h_{t-1}] [W; U] + b),    g = tanh(the same, of the fourth block)
        c_t = f c_{t-1} + i g,    h_t = o tanh(c_t)

    W (features, 4 units) and U (units, 4 units) hold their blocks in the order f, i, o, g. The bias of f is an array of
    its own, `forget_bias` (units,), and starts at 1, so that a cell remembers until it learns to forget (Jozefowicz,
    Zaremba and Sutskever 2015); `bias` (3 units,) is that of i, o, g.
    """

    def _parameters(self, features: int) -> Mapping[str, Parameter]:
        return {
            **self._matrices(features, 4),
            "forget_bias": Parameter((self.units,), Initializer.ONES),
            "bias": Parameter((3 * self.units,), Initializer.ZEROS),
        }

    def _read(
        self, params: Params, x: Array, still: Sequence[Rows], *, input_gradient: bool
    ) -> tuple[Array, StatesBackward]:
        time, rows, features = x.shape
        units = self.units
        both, h = joined(x, units)
        bias = np.concatenate([params["forget_bias"], params["bias"]])
        stacked = np.concatenate([params["weight"], params["recurrent_weight"], bias[np.newaxis]])
        stacked[:, : 3 * units] *= 0.5  # sigmoid(z) = (1 + tanh(z / 2)) / 2, and half of a float is exact
        of_gates = Tiles.of(stacked.reshape(-1, 4, units).swapaxes(0, 1), rows)
        gates = aligned((time, 4, rows, units), x.dtype)
        c = aligned((time + 1, rows, units), x.dtype)
        c[0] = 0
        bent = aligned((time, rows, units), x.dtype)  # tanh(c)
        entering = aligned((rows, units), x.dtype)
        places, products = of_gates.left(both), of_gates.out(gates)
        for t in range(time):
            np.matmul(places[t], of_gates.right, out=products[t])
            np.tanh(gates[t], out=gates[t])
            gates[t, :3] *= 0.5
            gates[t, :3] += 0.5
            f, i, o, g = gates[t]
            np.multiply(f, c[t], out=c[t + 1])
            np.multiply(i, g, out=entering)
            c[t + 1] += entering
            np.tanh(c[t + 1], out=bent[t])
            np.multiply(o, bent[t], out=h[t + 1])
            if len(still[t]):
                c[t + 1, still[t]] = c[t, still[t]]
                h[t + 1, still[t]] = h[t, still[t]]

        def backward(dy: Array, grads: Params) -> Array | None:
            """Back through time (Werbos 1990), gathering dz (time, rows, 4 units); the gradients are then one product:

            dc += dh o (1 - tanh(c)^2),    do = dh tanh(c) o (1 - o)
            df = dc c_{t-1} f (1 - f),    di = dc g i (1 - i),    dg = dc i (1 - g^2)
            dc_{t-1} = dc f,    dh_{t-1} = dz U^T,    [dW; dU; db] = the sum over t of [x_t, h_{t-1}, 1]^T dz
            """
            dz = aligned((min(AT_A_TIME, time), rows, 4 * units), x.dtype)
            dx = aligned((rows, time, features), x.dtype).swapaxes(0, 1) if input_gradient else None
            rest, (dh, dc, a, b) = (aligned((count, rows, units), x.dtype) for count in (3, 4))
            dh[...] = dc[...] = 0
            gradient, more = aligned((2, both.shape[2], 4 * units), x.dtype)
            to_h, to_x = (Tiles.of(params[key].T, rows) for key in ("recurrent_weight", "weight"))
            places, product = to_h.left(dz), to_h.out(dh)
            of_gates_at = dz.reshape(len(dz), rows, 4, units).swapaxes(1, 2)
            for start in reversed(range(0, time, AT_A_TIME)):
                piece = slice(start, min(start + AT_A_TIME, time))
                for t in reversed(range(time)[piece]):
                    if (given := t - time + len(dy)) >= 0:
                        dh += dy[given]
                    carried = (dh[still[t]], dc[still[t]]) if len(still[t]) else None
                    f, i, o, g = gates[t]
                    df, di, do, dg = of_gates_at[t - start]
                    np.subtract(1, gates[t, :3], out=rest)  # what they leave out
                    np.multiply(dh, o, out=a)
                    np.multiply(a, bent[t], out=b)
                    np.multiply(b, rest[2], out=do)
                    b *= bent[t]
                    a -= b
                    dc += a
                    np.multiply(dc, i, out=a)
                    np.multiply(a, g, out=b)
                    np.multiply(b, rest[1], out=di)
                    b *= g
                    np.subtract(a, b, out=dg)
                    dc *= f
                    np.multiply(dc, c[t], out=a)
                    np.multiply(a, rest[0], out=df)
                    if carried:
                        dz[t - start, still[t]] = 0
                        dc[still[t]] = carried[1]
                    if t:  # nobody asks for the gradient of h_0
                        np.matmul(places[t - start], to_h.right, out=product)
                    if carried:
                        dh[still[t]] = carried[0]
                behind = dz[: piece.stop - start]
                np.matmul(_flat(both[piece]).T, _flat(behind), out=more if piece.stop < time else gradient)
                if piece.stop < time:
                    gradient += more
                if dx is not None:
                    np.matmul(to_x.left(behind), to_x.right, out=to_x.out(dx[piece]))
            grads["weight"][...] = gradient[:features]
            grads["recurrent_weight"][...] = gradient[features:-1]
            grads["forget_bias"][...] = gradient[-1, :units]
            grads["bias"][...] = gradient[-1, units:]
            return dx

        return h[1:], backward


def _flat(places: Array) -> Array:
    """The rows of several places, (places rows, ...), one after the other."""
    return places.reshape(places.shape[0] * places.shape[1], places.shape[2])
