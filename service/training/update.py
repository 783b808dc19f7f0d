"""The two passes of a step over the vectors: average, then update.

Each vector is larger than the processor's cache and takes part in a dozen operations, so both passes go through it in
slices that stay in the cache: all operations on one slice, then the next. On large vectors two threads share the
slices, since NumPy lets go of the interpreter inside an operation; on small ones the hand-over costs more than it
saves.
"""

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from service.training.optimizers import Carried, Optimizer
from service.training.regularization import Regularization
from service.training.state import ADVICE, Diverged
from worker.arrays import Array
from worker.blocks import Block, merges
from worker.gradient import Gradient, Sums
from worker.network import Network, Segment, Table
from worker.tables import TableGradient, write_rows

SLICE = 65_536
"""Elements in a slice: five float32 slices of this size take 1.25 MiB."""

SHARED_FROM = 1_000_000
"""Parameters from which two threads are faster than one (measured: docs/architecture.md)."""

DOT = 8_192
"""Elements in one product whose last bits matter. BLAS would share more than 10,000 among its threads."""

T = TypeVar("T")
P = TypeVar("P")


@dataclass(frozen=True)
class Mean:
    """The mean gradient over all rows of a step."""

    vector: Array
    """(dense,); overwritten by the update. Where parameters are kept and not learned: what is added to them."""
    sums: Sums
    squared_norm: float
    """Of what is learned."""
    tables: Sequence[TableGradient] = ()
    """Overwritten by the update too."""


class Update:
    """Averages and updates vectors of one length, whose first `learned` elements are learned, and the others kept.

    In the parameters, and in what the optimizer carries, `tables` follow them. It touches the `segments`, by default
    all, and leaves what lies between as it is: that is frozen.
    """

    def __init__(
        self,
        parameters: int,
        dtype: np.dtype[np.floating],
        learned: int | None = None,
        regularization: Regularization | None = None,
        weights: Sequence[slice] = (),
        tables: Sequence[Table] = (),
        segments: Sequence[Segment] | None = None,
    ) -> None:
        """`weights` are the parts of the vectors that the regularization counts as weights."""
        self._tables = tables
        self._learned = parameters if learned is None else learned
        self._regularization = regularization or Regularization()
        self._regularizes = self._regularization != Regularization()
        if segments is None:
            segments = (Segment(0, self._learned), Segment(self._learned, parameters, kept=True))
        self._slices: list[slice] = []
        self._scales: dict[int, float] = {}
        """What the learning rate is multiplied by in a slice, by where it starts."""
        for segment in segments:
            for start in range(segment.start, segment.stop, SLICE):
                self._slices.append(slice(start, min(start + SLICE, segment.stop)))
                self._scales[start] = segment.scale
        penalised = weights if self._regularization.penalises else ()
        self._weights = {part.start: _within(part, penalised) for part in self._slices}
        self._threads = min(2, os.cpu_count() or 1) if parameters >= SHARED_FROM else 1
        self._executor = ThreadPoolExecutor(self._threads - 1) if self._threads > 1 else None
        longest = max([min(SLICE, parameters), *(min(SLICE, table.slot.size) for table in tables)])
        self._scratch = [np.empty(longest, dtype) for _ in range(self._threads)]

    def average(self, blocks: Sequence[Block], shards: int, pending: Gradient | None = None) -> Mean:
        """The mean of what all shards together brought; the blocks' vectors are used up.

        Blocks are added in the tree over shards and divided once, by the weight of all rows. Averaging the shards'
        means instead would weigh a row by the size of its shard. Statistics know no weights: each row counts once.

        What is `pending` from steps before is part of the mean, and its vector is zeros then. The sums that are
        returned are those of this step alone.
        """
        mean, sums, pairs, tables = _tree(blocks, shards)
        rows = pending.sums + sums if pending else sums
        share, share_of_kept = (1 / divisor if divisor else 0.0 for divisor in (rows.weight, rows.count))

        def add_and_divide(part: slice, _scratch: Array) -> float:
            for left, right in pairs:
                left[part] += right[part]
            piece = mean[part]
            if pending:
                piece += pending.vector[part]
                pending.vector[part] = 0
            if part.start >= self._learned:
                piece *= share_of_kept
                return 0.0
            piece *= share
            return self._squared(piece)

        def divide(part: TableGradient, _scratch: Array) -> float:
            piece = part.values.reshape(-1)
            piece *= share
            return self._squared(piece)

        if pending:
            tables = _added(pending.tables, tables)
        # What was added is nobody else's.
        means = tables if pairs or pending else [TableGradient(table.rows, table.values.copy()) for table in tables]
        squares = self._each(add_and_divide) + [square for table in means for square in self._on(_cut(table), divide)]
        return Mean(mean, sums, math.fsum(_finite(squares)), means)

    def accumulate(self, blocks: Sequence[Block], shards: int, pending: Gradient) -> Mean:
        """Adds what all shards brought to what is pending, and divides nothing. Returns the new sum.

        The vector that is pending is changed in place; its tables are not.
        """
        total, sums, pairs, tables = _tree(blocks, shards)

        def add(part: slice, _scratch: Array) -> float:
            for left, right in pairs:
                left[part] += right[part]
            piece = pending.vector[part]
            piece += total[part]
            return float(np.dot(piece, piece))

        tables = _added(pending.tables, tables)
        with np.errstate(over="ignore", invalid="ignore"):
            squares = self._each(add) + [float(np.vdot(table.values, table.values)) for table in tables]
        return Mean(pending.vector, sums, math.fsum(_finite(squares)), tables)

    def apply(self, optimizer: Optimizer, params: Array, mean: Mean, carried: Carried, rate: float, step: int) -> None:
        """Makes update number `step`, in place."""
        regularization = self._regularization
        scale = regularization.scale(self._norm(mean))

        def update(part: slice, scratch: Array) -> None:
            piece = mean.vector[part]
            if part.start >= self._learned:
                params[part] += piece
                return
            own_rate = rate * self._scales[part.start]
            if self._regularizes:
                weights = self._weights[part.start]
                regularization.prepare(params[part], piece, weights, scale, own_rate, scratch)
            vectors = {name: vector[part] for name, vector in carried.items()}
            optimizer.update(params[part], piece, vectors, own_rate, step, scratch[: len(piece)])

        self._each(update)
        for table, gradient in zip(self._tables, mean.tables, strict=True):
            views = [table.slot.view(vector) for vector in (params, *carried.values())]
            own_rate = rate * table.scale

            def update_rows(
                part: TableGradient, scratch: Array, views: Sequence[Array] = views, rate: float = own_rate
            ) -> None:
                own, *others = (view.take(part.rows, axis=0).reshape(-1) for view in views)
                vectors = dict(zip(carried, others, strict=True))
                piece = part.values.reshape(-1)
                if self._regularizes:
                    regularization.prepare(own, piece, [slice(0, len(own))], scale, rate, scratch)
                optimizer.update(own, piece, vectors, rate, step, scratch[: len(piece)])
                for view, changed in zip(views, (own, *others), strict=True):
                    write_rows(view, part.rows, changed.reshape(part.values.shape))

            self._on(_cut(gradient), update_rows)

    def _squared(self, piece: Array) -> float:
        """|piece|^2; with the same bits on any number of threads of BLAS, where something follows from it."""
        if self._regularization.clip_norm is None:
            return float(np.dot(piece, piece))
        parts = [piece[start : start + DOT] for start in range(0, len(piece), DOT)]
        return math.fsum(_finite([float(np.dot(part, part)) for part in parts]))

    def _norm(self, mean: Mean) -> float:
        """Of what is learned; also where its square is too large to be a number, if something follows from it."""
        if math.isfinite(mean.squared_norm) or self._regularization.clip_norm is None:
            return math.sqrt(mean.squared_norm)
        learned = [mean.vector[part] for part in self._slices if part.start < self._learned]
        learned += [part.values.reshape(-1) for table in mean.tables for part in _cut(table)]
        largest = max(float(np.abs(piece).max()) for piece in learned)
        return largest * math.sqrt(math.fsum(self._squared(piece / largest) for piece in learned))

    def _each(self, work: Callable[[slice, Array], T]) -> list[T]:
        """Does some work on every slice; the results in order."""
        return self._on(self._slices, work)

    def _on(self, parts: Sequence[P], work: Callable[[P, Array], T]) -> list[T]:
        """Does some work on every part, with scratch as long as any; the results in order."""

        def on(parts: Sequence[P], scratch: Array) -> list[T]:
            # Every thread has settings of its own. What overflows is looked for in the results.
            with np.errstate(over="ignore", invalid="ignore"):
                return [work(part, scratch) for part in parts]

        half = len(parts) // 2
        if self._executor is None or not half:
            return on(parts, self._scratch[0])
        other = self._executor.submit(on, parts[half:], self._scratch[1])
        return on(parts[:half], self._scratch[0]) + other.result()


def check_finite(mean: Mean, network: Network, step: int) -> None:
    """Raises Diverged, naming the parameter where the way back goes wrong, if the step must not be applied."""
    if math.isfinite(mean.sums.loss) and math.isfinite(mean.squared_norm):
        return
    broken = _broken(mean, network)
    if math.isfinite(mean.sums.loss) and not broken:
        return  # the gradient is large, but only its square is beyond single precision
    where = f"the gradient of {broken}" if broken else "the loss"
    raise Diverged(
        f"{where} is NaN or infinite in step {step + 1} (the mean loss there: {mean.sums.mean_loss:g}); "
        f"the step was not applied. {ADVICE}"
    )


def _broken(mean: Mean, network: Network) -> str:
    """The name of the last parameter whose gradient is not finite; "" if all is well.

    Gradients go from the last layer to the first: those in front of it may have it from there.
    """
    gradients = [(slot, slot.view(mean.vector)) for slot in network.slots if not slot.parameter.is_table]
    gradients += [(table.slot, of.values) for table, of in zip(network.tables, mean.tables, strict=True)]
    broken = [slot for slot, gradient in gradients if not np.isfinite(gradient).all()]
    return max(reversed(broken), key=lambda slot: slot.layer).name if broken else ""


def weights_of(network: Network) -> list[slice]:
    """The parts of a network's vector that are weights: what is learned and has two or more axes."""
    return [
        slice(slot.offset, slot.offset + slot.size)
        for slot in network.slots
        if not (slot.parameter.kept or slot.parameter.is_table) and len(slot.parameter.shape) >= 2
    ]


def _tree(
    blocks: Sequence[Block], shards: int
) -> tuple[Array, Sums, list[tuple[Array, Array]], tuple[TableGradient, ...]]:
    """How blocks are added: where the sum of all comes to lie, the sums, and the vectors to add to which, in order.

    What is in tables is added here, since it is little.
    """
    by_first = {block.first: block.total for block in blocks}
    additions, _ = merges(((block.first, block.width) for block in blocks), shards)
    sums = {first: total.sums for first, total in by_first.items()}
    tables = {first: total.tables for first, total in by_first.items()}
    for left, right in additions:
        sums[left] = sums[left] + sums[right]
        tables[left] = _added(tables[left], tables[right])
    pairs = [(by_first[left].vector, by_first[right].vector) for left, right in additions]
    return by_first[0].vector, sums[0], pairs, tables[0]


def _added(left: Sequence[TableGradient], right: Sequence[TableGradient]) -> tuple[TableGradient, ...]:
    with np.errstate(over="ignore", invalid="ignore"):
        return tuple(one + other for one, other in zip(left, right, strict=True))


def _cut(table: TableGradient) -> list[TableGradient]:
    """A table's gradient in slices of whole rows."""
    size = max(SLICE // table.values.shape[1], 1)
    return [
        TableGradient(table.rows[start : start + size], table.values[start : start + size])
        for start in range(0, len(table.rows), size)
    ]


def _within(part: slice, ranges: Sequence[slice]) -> list[slice]:
    """What of some ranges lies within a part, counted from its start."""
    cut = [(max(one.start, part.start), min(one.stop, part.stop)) for one in ranges]
    return [slice(start - part.start, stop - part.start) for start, stop in cut if start < stop]


def _finite(squares: list[float]) -> list[float]:
    """fsum refuses infinities of both signs; squares have none, but NaN must come out as NaN."""
    return [math.nan] if any(math.isnan(square) for square in squares) else squares
