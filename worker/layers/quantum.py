"""A variational quantum circuit, simulated: rotations by what comes in and by what is learned, then a measurement.

The state of n qubits is a vector of 2^n complex amplitudes, qubit 0 being the most significant digit of an amplitude's
number. Here any number of circuits of one form are run side by side, each with angles of its own: their states are
(2^n, circuits), so that a gate on a qubit is a few operations on long arrays.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from worker.arrays import Array, Shape
from worker.errors import InvalidValue
from worker.initializers import Initializer
from worker.layers.layer import Backward, Context, Parameter, Params

MOST_QUBITS = 8
MOST_DEPTH = 8
AMPLITUDES = 65_536
"""How many amplitudes are worked on at once: half a MiB in single precision, which stays in the cache."""


@dataclass(frozen=True)
class Quantum:
    """y_q = <Z_q>, what measuring qubit q gives on average, -1 to 1, for x and y of shape (rows, qubits).

    All qubits start as |0>, and qubit q is turned by RY(x_q). Each of `depth` layers turns every qubit by RZ and then
    by RY, the angles being learned, (depth, qubits, 2) in that order, and then entangles neighbours by CNOTs in a
    ring: from 0 to 1, from 1 to 2, ..., from n - 1 to 0 (Mitarai et al. 2018; Schuld et al. 2020, "Circuit-centric
    quantum classifiers").

    The gradient is what a quantum computer could measure. An expectation E depends on the angle a of a rotation as a
    sine of period 2 pi, so dE/da = (E(a + pi/2) - E(a - pi/2)) / 2, exactly (the parameter-shift rule: Mitarai et al.
    2018, eq. 8; Schuld et al. 2019).
    """

    qubits: int
    depth: int = 2

    def __post_init__(self) -> None:
        for field, most in (("qubits", MOST_QUBITS), ("depth", MOST_DEPTH)):
            if not 1 <= getattr(self, field) <= most:
                raise InvalidValue(field, f"is {getattr(self, field)}; must be 1 to {most}")

    @property
    def operations(self) -> int:
        """How many amplitudes a row's gradient turns: a circuit, and two more for each angle that is shifted."""
        gates = self.qubits * (2 * self.depth + 1)
        return (1 + 2 * gates) * gates << self.qubits

    def output_shape(self, input_shape: Shape) -> Shape:
        if input_shape != (self.qubits,):
            raise InvalidValue(
                "qubits",
                f"is {self.qubits}; the circuit then takes rows of shape ({self.qubits},), one angle a qubit, but rows "
                f"of shape {input_shape} reach it; let a dense layer of {self.qubits} units come before it",
            )
        return input_shape

    def parameters(self, input_shape: Shape) -> Mapping[str, Parameter]:  # noqa: ARG002 - output_shape has seen to it
        # With one input and one output Glorot's limits are +-sqrt(3): nearly anywhere, but no turn by more than half.
        return {"angles": Parameter((self.depth, self.qubits, 2), Initializer.GLOROT_UNIFORM)}

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:
        angles, context.mask = params["angles"], None
        y = np.empty_like(x)
        for part in self._parts(len(x), circuits=1):
            y[part] = _expectations(x[part].T, angles[..., np.newaxis]).T

        def backward(dy: Array, grads: Params) -> Array:
            slopes = grads["angles"].reshape(-1)
            slopes[...] = 0
            shifted = _shifted(angles.reshape(-1, 1)).reshape(*angles.shape, -1)
            for part in self._parts(len(x), circuits=shifted.shape[-1]):
                # All shifts of the angles, each for all rows.
                x_of_each, angles_of_each = np.tile(x[part].T, shifted.shape[-1]), shifted.repeat(len(x[part]), axis=-1)
                slopes += _slopes(_expectations(x_of_each, angles_of_each), dy[part]).sum(axis=1)
            if not context.input_gradient:
                return dy
            dx = np.empty_like(x)
            for part in self._parts(len(x), circuits=2 * self.qubits):
                dx[part] = _slopes(_expectations(_shifted(x[part].T), angles[..., np.newaxis]), dy[part]).T
            return dx

        return y, backward

    def _parts(self, rows: int, circuits: int) -> list[slice]:
        """Cuts rows so that the states of all their circuits stay in the cache."""
        size = max(AMPLITUDES // (circuits * 2**self.qubits), 1)
        return [slice(start, start + size) for start in range(0, rows, size)]


def _shifted(angles: Array) -> Array:
    """(n, 2 n rows) from n angles a row, (n, rows): first all rows with one of the angles pi / 2 larger, for each angle
    in turn, and then likewise with one smaller."""
    n = len(angles)
    shifts = np.eye(n, dtype=angles.dtype)[..., np.newaxis] * (np.pi / 2)
    of_all = angles[:, np.newaxis]
    return np.concatenate([of_all + shifts, of_all - shifts], axis=1).reshape(n, -1)


def _slopes(expectations: Array, dy: Array) -> Array:
    """(n, rows): half the difference between an angle larger and smaller, for n angles a row, summed over the outputs.

    `expectations` (qubits, 2 n rows) are those of `_shifted` angles; dy (rows, qubits) is how much each output counts.
    """
    rows, qubits = dy.shape
    weighted = expectations.reshape(qubits, -1, rows) * dy.T[:, np.newaxis]
    larger, smaller = np.split(weighted.sum(axis=0), 2)
    slopes: Array = (larger - smaller) * 0.5
    return slopes


def _expectations(x: Array, angles: Array) -> Array:
    """<Z> of every qubit, (qubits, circuits), for circuits that turn by x (qubits, circuits) and then by `angles`.

    Those are (depth, qubits, 2, circuits), or end in 1 where they are the same for all circuits.
    """
    states = evolved(_encoded(x), angles)
    expectations: Array = signs(len(x), x.dtype) @ (np.square(states.real) + np.square(states.imag))
    return expectations


def evolved(states: Array, angles: Array) -> Array:
    """What the learned part of the circuit makes of states (2^n, circuits), which it uses up.

    The angles are (depth, qubits, 2, circuits), or end in 1 where they are the same for all.
    """
    ring = _ring(angles.shape[1])
    for of_layer in angles:
        for qubit, of_qubit in enumerate(of_layer):
            _turn(states, qubit, *of_qubit)
        states = states.take(ring, axis=0)
    return states


def _encoded(x: Array) -> Array:
    """The states (2^n, circuits) after RY(x_q) on |0> of every qubit: amplitudes cos(x_q / 2), sin(x_q / 2)."""
    of_qubits = np.stack([np.cos(x * 0.5), np.sin(x * 0.5)], axis=1)
    states = of_qubits[0]
    for of_qubit in of_qubits[1:]:
        states = (states[:, np.newaxis] * of_qubit).reshape(2 * len(states), -1)
    encoded: Array = states.astype(np.complex64 if x.dtype == np.float32 else np.complex128)
    return encoded


def _turn(states: Array, qubit: int, a: Array, b: Array) -> None:
    """RZ(a) and then RY(b) on one qubit, in place; a and b are (circuits,).

    RZ(a) = diag(exp(-i a / 2), exp(i a / 2)), RY(b) = [[cos(b / 2), -sin(b / 2)], [sin(b / 2), cos(b / 2)]].
    """
    phase = np.exp(0.5j * a).astype(states.dtype)
    back, cosine, sine = phase.conj(), np.cos(b * 0.5), np.sin(b * 0.5)
    # By the digit of the qubit: (digits before it, the digit, digits after it, circuits).
    pairs = states.reshape(2**qubit, 2, -1, states.shape[1])
    zero, one = pairs[:, 0], pairs[:, 1]
    turned = zero * (cosine * back)
    turned -= one * (sine * phase)
    one *= cosine * phase
    one += zero * (sine * back)
    zero[...] = turned


def _ring(qubits: int) -> Array:
    """Which amplitude comes to each place when neighbours in a ring are entangled; nothing moves for one qubit."""
    places = np.arange(2**qubits)
    for control in range(qubits if qubits > 1 else 0):
        target = (control + 1) % qubits
        # A CNOT is its own inverse: what comes to a place is from where that place would go.
        moved = np.arange(2**qubits)
        moved ^= (moved >> (qubits - 1 - control) & 1) << (qubits - 1 - target)
        places = places[moved]
    return places


def signs(qubits: int, dtype: np.dtype[np.floating]) -> Array:
    """(qubits, 2^qubits): 1 where a qubit is 0, -1 where it is 1."""
    digits = np.arange(2**qubits) >> np.arange(qubits - 1, -1, -1)[:, np.newaxis] & 1
    return (1 - 2 * digits).astype(dtype)
