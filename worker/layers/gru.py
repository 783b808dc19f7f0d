"""The gated recurrent unit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from worker.arrays import Array, Rows
from worker.initializers import Initializer
from worker.layers.layer import Parameter, Params
from worker.layers.recurrent import Recurrent, StatesBackward, sigmoid
from worker.layers.tiles import Tiles


@dataclass(frozen=True)
class Gru(Recurrent):
    """A state that a gate mixes with a candidate (Cho et al. 2014), in the form of cuDNN and PyTorch, where the reset
    gate acts after the product with the state and not on the state before it:

        [z, r] = sigmoid(x_t W + h_{t-1} U + b),    n = tanh(x_t W_n + b_n + r (h_{t-1} U_n + b'))
        h_t = (1 - z) n + z h_{t-1}

    W (features, 3 units), U (units, 3 units) and b (3 units,) hold their blocks in the order z, r, n; b' is
    `recurrent_bias` (units,).
    """

    def _parameters(self, features: int) -> Mapping[str, Parameter]:
        return {
            **self._matrices(features, 3),
            "bias": Parameter((3 * self.units,), Initializer.ZEROS),
            "recurrent_bias": Parameter((self.units,), Initializer.ZEROS),
        }

    def _read(
        self, params: Params, x: Array, still: Sequence[Rows], *, input_gradient: bool
    ) -> tuple[Array, StatesBackward]:
        time, rows, features = x.shape
        units = self.units
        x = np.ascontiguousarray(x)
        flat_x = x.reshape(time * rows, features)
        of_x = (flat_x @ params["weight"]).reshape(time, rows, 3 * units)
        gates = np.empty((time, 2, rows, units), x.dtype)
        n, of_h = np.empty((2, time, rows, units), x.dtype)  # of_h: h_{t-1} U_n + b'
        h = np.zeros((time + 1, rows, units), x.dtype)
        s = np.empty((rows, 3 * units), x.dtype)
        of_states = Tiles.of(params["recurrent_weight"], rows)
        states, product = of_states.left(h), of_states.out(s)
        zr = s[:, : 2 * units].reshape(rows, 2, units).swapaxes(0, 1)
        for t in range(time):
            of_x[t] += params["bias"]
            np.matmul(states[t], of_states.right, out=product)
            np.add(s[:, 2 * units :], params["recurrent_bias"], out=of_h[t])
            s[:, : 2 * units] += of_x[t, :, : 2 * units]
            sigmoid(zr, out=gates[t])
            z, r = gates[t]
            np.multiply(r, of_h[t], out=n[t])
            n[t] += of_x[t, :, 2 * units :]
            np.tanh(n[t], out=n[t])
            np.subtract(h[t], n[t], out=h[t + 1])
            h[t + 1] *= z
            h[t + 1] += n[t]
            if len(still[t]):
                h[t + 1, still[t]] = h[t, still[t]]

        def backward(dy: Array, grads: Params) -> Array | None:
            """Back through time, with da = dn (1 - n^2) that of the tanh's argument:

            dn = dh (1 - z),    dz = dh (h_{t-1} - n) z (1 - z),    dr = da (h_{t-1} U_n + b') r (1 - r)
            dh_{t-1} = dh z + [dz, dr, da r] U^T
            dU = the sum over t of h_{t-1}^T [dz, dr, da r],    dW = that of x_t^T [dz, dr, da]
            """
            # In the order da, dz, dr, da r: the first three belong to W, the last three to U.
            d = np.empty((time, rows, 4 * units), x.dtype)
            dh = np.zeros((rows, units), x.dtype)
            slopes, a, b = np.empty((2, rows, units), x.dtype), *np.empty((2, rows, units), x.dtype)
            back = Tiles.of(params["recurrent_weight"].T, rows)
            places, product = back.left(d[..., units:]), back.out(a)
            for t in reversed(range(time)):
                if (given := t - time + len(dy)) >= 0:
                    dh += dy[given]
                carried = dh[still[t]] if len(still[t]) else None
                z, r = gates[t]
                da, dz, dr, dar = d[t].reshape(rows, 4, units).swapaxes(0, 1)
                np.subtract(1, gates[t], out=slopes)
                np.multiply(dh, slopes[0], out=a)  # dn
                slopes *= gates[t]
                np.subtract(h[t], n[t], out=b)
                b *= dh
                np.multiply(b, slopes[0], out=dz)
                np.multiply(n[t], n[t], out=b)
                b *= a
                a -= b  # da
                da[...] = a
                np.multiply(a, r, out=dar)
                a *= of_h[t]
                np.multiply(a, slopes[1], out=dr)
                dh *= z
                if carried is not None:
                    d[t, still[t]] = 0
                np.matmul(places[t], back.right, out=product)
                dh += a
                if carried is not None:
                    dh[still[t]] = carried
            flat = d.reshape(time * rows, 4 * units)
            np.matmul(h[:-1].reshape(time * rows, units).T, flat[:, units:], out=grads["recurrent_weight"])
            sums = np.add.reduce(flat, axis=0)
            grads["bias"][...] = np.roll(sums[: 3 * units], -units)
            grads["recurrent_bias"][...] = sums[3 * units :]
            grads["weight"][...] = np.roll(flat_x.T @ flat[:, : 3 * units], -units, axis=1)
            if not input_gradient:
                return None
            return (flat[:, : 3 * units] @ np.roll(params["weight"], units, axis=1).T).reshape(x.shape)

        return h[1:], backward
