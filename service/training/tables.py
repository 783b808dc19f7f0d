"""Whether a column holds what networks look up in tables, and sequences of which something is left without padding."""

from collections.abc import Iterator, Sequence
from dataclasses import fields

import numpy as np

from service.data.columns import Column
from service.errors import InvalidArgument, Violations
from worker.arrays import Array
from worker.layers import LAYERS, Embedding, Layer, Stack
from worker.network import Network

NUMBERS_AT_ONCE = 4_000_000
"""About how much of a column is looked at in one go."""


def check_tables(network: Network, column: Column, path: str, violations: Violations) -> None:
    """Notes embeddings that the input doesn't reach as it is, or whose table is too small for it."""
    for embedding, where, is_reached in _embeddings(network.layers, f"{path}.layers", is_reached=True):
        if not is_reached:
            violations.add(where, "looks up integers, but what other layers make of them reaches it; put it first")
        elif not column.integral:
            violations.add(where, f"looks up integers, but {column.name!r} is a column of {column.dtype}")
        elif column.min < 0:
            violations.add(
                f"{where}.vocabulary",
                f"is {embedding.vocabulary}, for integers from 0 on, but {column.name!r} has integers from "
                f"{column.min:g} to {column.max:g}",
            )
        elif column.max >= embedding.vocabulary:
            violations.add(
                f"{where}.vocabulary",
                f"is {embedding.vocabulary}, but {column.name!r} has integers from {column.min:.0f} to "
                f"{column.max:.0f}; must be at least {column.max + 1:.0f}",
            )


def check_lengths(rows: Array, padding: float, name: str, field: str, at_once: int = NUMBERS_AT_ONCE) -> None:
    """Raises InvalidArgument, naming the first row of the column (rows, time, ...) that is nothing but padding.

    The column is read in blocks, of about `at_once` numbers each, so that a large one costs no memory.
    """
    if rows.ndim < 2:
        return
    size = max(at_once // max(rows[:1].size, 1), 1)
    for start in range(0, len(rows), size):
        # In single precision, as a network sees them.
        padded = np.equal(rows[start : start + size].astype(np.float32), padding)
        empty = padded.all(axis=tuple(range(1, rows.ndim)))
        if empty.any():
            row = start + int(empty.argmax())
            raise InvalidArgument.of(
                field,
                f"{name!r} has nothing but padding ({padding:g}) in row {row:,}, counted from 0; leave such rows out",
            )


def _embeddings(layers: Sequence[Layer], path: str, *, is_reached: bool) -> Iterator[tuple[Embedding, str, bool]]:
    """Every embedding, where it is, and whether the input reaches it as it is."""
    kinds = {cls: kind for kind, cls in LAYERS.items()}
    for index, layer in enumerate(layers):
        where = f"{path}[{index}].{kinds[type(layer)]}"
        first = is_reached and index == 0
        if isinstance(layer, Embedding):
            yield layer, where, first
        for name, inner in inner_layers(layer):
            yield from _embeddings(inner, f"{where}.{name}", is_reached=first)


def inner_layers(layer: Layer) -> Iterator[tuple[str, Sequence[Layer]]]:
    """The layers within a layer, each sequence of them with its name."""
    kinds = tuple(LAYERS.values())
    for field in fields(layer):  # type: ignore[arg-type]  # every layer is a dataclass
        items = getattr(layer, field.name)
        if isinstance(items, tuple) and items and isinstance(items[0], kinds):
            yield field.name, items
        elif isinstance(items, tuple) and items and isinstance(items[0], Stack):
            yield from ((f"{field.name}[{index}].layers", stack.layers) for index, stack in enumerate(items))
