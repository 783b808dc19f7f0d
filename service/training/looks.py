"""A look at the layers in a step: what parameters and gradient tell of them, beside what workers saw.

Lengths are taken in double precision, in pieces that BLAS leaves to one thread, so that they have the same bits with
any number of them. A look takes a copy of the parameters, and about as long as an update: hence only now and then.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from functools import cached_property

import numpy as np

from service.jobs.health import LayerHealth
from service.training.state import Diverged
from service.training.update import DOT, Mean
from worker import health
from worker.arrays import Array, Rows
from worker.gradient import Sums
from worker.layers import KINDS, Leaf
from worker.network import Network, Slot


@dataclass(frozen=True)
class Looks:
    """Looks at the layers of a network."""

    network: Network

    def at(self, params: Array, mean: Mean, update: Callable[[], None]) -> tuple[float, tuple[LayerHealth, ...]] | None:
        """Has an update made of the parameters, by this gradient, and tells how the layers fared in that.

        Returns the length of the gradient, and the figures of each layer that let anything out. None if one of them
        is no number any more: that is for others to tell.
        """
        assert mean.sums.health is not None, "the workers were asked to look"  # noqa: S101
        outputs = health.outputs(self.network, mean.sums.health)
        before = [self._before(slots, params, mean) for slots in self._changing]
        gradient = math.sqrt(math.fsum(each.squares for each in before))
        update()
        layers = tuple(
            LayerHealth(
                self._name(outlook.leaf),
                KINDS[type(outlook.leaf.layer)],
                seen.mean,
                seen.deviation,
                *own.figures(params),
                seen.dead_ratio,
                seen.saturated_ratio,
            )
            for outlook, seen, own in zip(self.network.outlooks.values(), outputs, before, strict=True)
            if seen is not None
        )
        numbers = [gradient, *(n for layer in layers for n in astuple(layer) if isinstance(n, float))]
        return (gradient, layers) if all(map(math.isfinite, numbers)) else None

    def located(self, error: Diverged, sums: Sums) -> Diverged:
        """The same, with the first layer of which something that isn't finite came out in a step; if there is one.

        The layers behind it have it from there, and the gradients of all are broken by it.
        """
        assert sums.health is not None, "the workers were asked to look"  # noqa: S101
        outputs = zip(self.network.outlooks.values(), health.outputs(self.network, sums.health), strict=True)
        broken = [each.leaf for each, seen in outputs if seen is not None and not math.isfinite(seen.mean)]
        if not broken:
            return error
        name, kind = self._name(broken[0]), KINDS[type(broken[0].layer)]
        return Diverged(f"NaN or infinite numbers come out of {name} ({kind}): {error}")

    @cached_property
    def _changing(self) -> list[list[Slot]]:
        """Of each layer the parameters that are learned."""
        network = self.network
        slots = {(slot.layer, slot.key): slot for slot in network.slots}
        return [
            [
                slot
                for slot in map(slots.__getitem__, outlook.leaf.parameters)
                if slot.size and not (slot.parameter.kept or network.traits_of(slot.layer).frozen)
            ]
            for outlook in network.outlooks.values()
        ]

    def _before(self, slots: list[Slot], params: Array, mean: Mean) -> "_Before":
        parts: list[tuple[_Part, Array]] = []
        squares: list[float] = []
        tables = {table.slot.name: gradient for table, gradient in zip(self.network.tables, mean.tables, strict=True)}
        for slot in slots:
            table = tables.get(slot.name)
            squares += _squares(slot.view(mean.vector) if table is None else table.values)
            # The update writes into the table's gradient, but not into which rows it is of.
            part = _Part(slot, None if table is None else table.rows)
            parts.append((part, part.of(params).copy()))
        return _Before(math.fsum(squares), parts)

    def _name(self, leaf: Leaf) -> str:
        """The layer's own name in place of its number, if it has one."""
        number = f"layers.{leaf.path[0]}"
        return (self.network.traits_of(leaf.path[0]).name or number) + leaf.name.removeprefix(number)


@dataclass(frozen=True)
class _Part:
    """A parameter, or of a table the rows that were looked up: no others have a gradient."""

    slot: Slot
    rows: Rows | None

    def of(self, params: Array) -> Array:
        """It, in the flat vector."""
        view = self.slot.view(params)
        return view if self.rows is None else view[self.rows]


@dataclass(frozen=True)
class _Before:
    """A layer's gradient and parameters before an update."""

    squares: float
    """The square of the gradient's length."""
    parts: list[tuple[_Part, Array]]

    def figures(self, params: Array) -> tuple[float | None, float | None, float | None]:
        """The length of the gradient, that of the parameters, and by which part of that they have changed since."""
        if not self.parts:
            return None, None, None
        norm = math.sqrt(math.fsum(square for _, was in self.parts for square in _squares(was)))
        changes = (_squares(part.of(params), was) for part, was in self.parts)
        change = math.sqrt(math.fsum(square for squares in changes for square in squares))
        return math.sqrt(self.squares), norm, change / norm if norm else None


def _squares(numbers: Array, less: Array | None = None) -> Iterator[float]:
    """The squares of the lengths of the pieces of numbers, `less` others. Infinite where a sum would have no value.

    Piece by piece, so that nothing as long as the parameters is made in double precision.
    """
    flat, others = numbers.reshape(-1), None if less is None else less.reshape(-1)
    for start in range(0, len(flat), DOT):
        piece = flat[start : start + DOT].astype(np.float64)
        if others is not None:
            piece -= others[start : start + DOT]
        square = float(np.dot(piece, piece))
        yield square if math.isfinite(square) else math.inf
