"""Whether simulated quantum circuits are small enough: what they cost grows with 2^qubits, and no shape tells of it."""

from collections.abc import Iterator, Sequence

from service.errors import Violations
from service.training.tables import inner_layers
from worker.layers import LAYERS, Layer
from worker.layers.quantum import Quantum

MOST_OPERATIONS = 3_000_000_000
"""Amplitudes that are turned for a shard, at about 10 ns each: half a minute."""


def check_circuits(layers: Sequence[Layer], rows: int, path: str, violations: Violations) -> None:
    """Notes circuits that would keep a worker at a shard of so many rows for minutes, and all others beside them."""
    found = list(_circuits(layers, f"{path}.layers"))
    total = rows * sum(circuit.operations for circuit, _ in found)
    for circuit, where in found:
        if total > MOST_OPERATIONS:
            alone = f"{rows * circuit.operations:,} operations"
            violations.add(
                where,
                f"has {circuit.qubits} qubits and depth {circuit.depth}, which takes {alone} for the {rows:,} rows of "
                f"a shard; all circuits together must take at most {MOST_OPERATIONS:,}: use fewer qubits, less depth, "
                "a smaller batch_size or more shards",
            )


def _circuits(layers: Sequence[Layer], path: str) -> Iterator[tuple[Quantum, str]]:
    kinds = {cls: kind for kind, cls in LAYERS.items()}
    for index, layer in enumerate(layers):
        where = f"{path}[{index}].{kinds[type(layer)]}"
        if isinstance(layer, Quantum):
            yield layer, where
        for name, inner in inner_layers(layer):
            yield from _circuits(inner, f"{where}.{name}")
