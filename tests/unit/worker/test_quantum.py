"""Circuits against matrices: every gate written out over the whole state."""

import functools

import numpy as np
import pytest

from worker.arrays import Array, Shape
from worker.errors import InvalidValue
from worker.layers import Context, Quantum

RNG = np.random.default_rng(11)
Z = np.diag([1, -1])


def ry(angle: float) -> Array:
    c, s = np.cos(angle / 2), np.sin(angle / 2)
    return np.array([[c, -s], [s, c]])


def rz(angle: float) -> Array:
    return np.diag(np.exp([-0.5j * angle, 0.5j * angle]))


def on(gates: dict[int, Array], qubits: int) -> Array:
    """Gates on some qubits, the identity on the others."""
    return functools.reduce(np.kron, [gates.get(qubit, np.eye(2)) for qubit in range(qubits)])


def cnot(control: int, target: int, qubits: int) -> Array:
    x = np.array([[0, 1], [1, 0]])
    return on({control: np.diag([1, 0])}, qubits) + on({control: np.diag([0, 1]), target: x}, qubits)


def expectations(x: Array, angles: Array) -> list[float]:
    n = len(x)
    state = on({qubit: ry(x[qubit]) for qubit in range(n)}, n)[:, 0].astype(complex)
    for layer in angles:
        state = on({qubit: ry(layer[qubit, 1]) @ rz(layer[qubit, 0]) for qubit in range(n)}, n) @ state
        for control in range(n if n > 1 else 0):
            state = cnot(control, (control + 1) % n, n) @ state
    return [float((state.conj() @ on({qubit: Z}, n) @ state).real) for qubit in range(n)]


@pytest.mark.parametrize(("qubits", "depth"), [(1, 1), (2, 1), (2, 3), (3, 2), (5, 2)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_it_is_the_product_of_its_gates(qubits: int, depth: int, dtype: type, tolerance: float) -> None:
    x: Array = RNG.uniform(-4, 4, (3, qubits)).astype(dtype)
    angles: Array = RNG.uniform(-4, 4, (depth, qubits, 2)).astype(dtype)
    y, _ = Quantum(qubits, depth).forward({"angles": angles}, x, Context())
    np.testing.assert_allclose(y, [expectations(row, angles) for row in x], atol=tolerance)


def test_one_qubit_by_hand() -> None:
    """RY(x), RZ(a), RY(b) on |0> gives cos x cos b - sin x sin b cos a."""
    x, a, b = 0.7, 1.1, -0.4
    y, _ = Quantum(1, 1).forward({"angles": np.array([[[a, b]]])}, np.array([[x]]), Context())
    assert y[0, 0] == pytest.approx(np.cos(x) * np.cos(b) - np.sin(x) * np.sin(b) * np.cos(a), abs=1e-15)


def test_rows_in_several_parts_are_as_rows_in_one() -> None:
    """Backward cuts the rows so that all shifted circuits of a part fit into the cache."""
    layer = Quantum(8, 2)
    params = {"angles": RNG.standard_normal((2, 8, 2))}
    x, dy = RNG.standard_normal((2, 9, 8))
    grads = {"angles": np.full((2, 8, 2), np.nan)}
    y, back = layer.forward(params, x, Context())
    dx = back(dy, grads)
    total = np.zeros((2, 8, 2))
    for row in range(9):
        of_row = {"angles": np.full((2, 8, 2), np.nan)}
        one, back = layer.forward(params, x[row : row + 1], Context())
        np.testing.assert_allclose(one[0], y[row], atol=1e-14)
        np.testing.assert_allclose(back(dy[row : row + 1], of_row)[0], dx[row], atol=1e-13)
        total += of_row["angles"]
    np.testing.assert_allclose(grads["angles"], total, atol=1e-12)


@pytest.mark.parametrize(
    ("qubits", "depth", "field"), [(0, 1, "qubits"), (9, 1, "qubits"), (2, 0, "depth"), (2, 9, "depth")]
)
def test_sizes_out_of_range_are_refused(qubits: int, depth: int, field: str) -> None:
    with pytest.raises(InvalidValue, match="must be 1 to 8") as refused:
        Quantum(qubits, depth)
    assert refused.value.field == field


@pytest.mark.parametrize("shape", [(), (2,), (4,), (3, 1)], ids=str)
def test_it_says_what_would_fit(shape: Shape) -> None:
    with pytest.raises(ValueError, match=r"qubits: is 3; .* rows of shape \(3,\).* let a dense layer of 3 units"):
        Quantum(3).output_shape(shape)
