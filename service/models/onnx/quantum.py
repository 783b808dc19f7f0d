"""A simulated quantum circuit as ONNX operators, in real numbers.

The inputs turn every qubit by itself, which gives a product of small vectors. All that is learned acts on the whole
state as one unitary matrix, which is a constant. Measuring is another matrix.
"""

import numpy as np

from service.models.onnx.graph import Graph, Place
from worker.layers.quantum import evolved, signs


def quantum(graph: Graph, place: Place, x: str) -> str:
    """y = (|U s|^2) Z, with s the product over qubits of (cos(x_q / 2), sin(x_q / 2))."""
    graph.mask = ""
    qubits, angles = place.layer.qubits, place.params["angles"].astype(np.float64)
    states = _states(graph, qubits, x)
    unitary = evolved(np.eye(2**qubits, dtype=np.complex128), angles[..., np.newaxis])
    squares = []
    for name, half in (("real", unitary.real), ("imaginary", unitary.imag)):
        amplitudes = graph.node("MatMul", states, graph.constant(half.T.astype(np.float32), f"{place.name}.{name}"))
        squares.append(graph.node("Mul", amplitudes, amplitudes))
    return graph.node("MatMul", graph.node("Add", *squares), graph.constant(signs(qubits, np.dtype(np.float32)).T))


def _states(graph: Graph, qubits: int, x: str) -> str:
    """(rows, 2^qubits) of x (rows, qubits), the first qubit being the most significant digit."""
    half = graph.node("Unsqueeze", graph.node("Mul", x, graph.number(0.5)), graph.integers(-1))
    both = graph.node("Concat", graph.node("Cos", half), graph.node("Sin", half), axis=-1)
    (states, *others) = (graph.node("Gather", both, graph.integers(qubit), axis=1) for qubit in range(qubits))
    states = graph.reshape(states, 2, 1)
    for number, of_qubit in enumerate(others, start=2):
        states = graph.reshape(graph.node("Mul", states, of_qubit), 2**number, 1)
    return graph.reshape(states, 2**qubits)
