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
from service.training.state import ADVICE, Diverged, first_broken
from worker.arrays import Array
from worker.blocks import Block, merges
from worker.gradient import Sums
from worker.network import Network

SLICE = 65_536
"""Elements in a slice: five float32 slices of this size take 1.25 MiB."""

SHARED_FROM = 1_000_000
"""Parameters from which two threads are faster than one (measured: docs/architecture.md)."""

T = TypeVar("T")


@dataclass(frozen=True)
class Mean:
    """The mean gradient over all rows of a step."""

    vector: Array
    """(parameters,); overwritten by the update. Where parameters are kept and not learned: what is added to them."""
    sums: Sums
    squared_norm: float
    """Of what is learned."""


class Update:
    """Averages and updates vectors of one length, whose first `learned` elements are learned, and the others kept."""

    def __init__(self, parameters: int, dtype: np.dtype[np.floating], learned: int | None = None) -> None:
        self._learned = parameters if learned is None else learned
        self._slices = [
            slice(start, min(start + SLICE, end))
            for begin, end in ((0, self._learned), (self._learned, parameters))
            for start in range(begin, end, SLICE)
        ]
        self._threads = min(2, os.cpu_count() or 1) if parameters >= SHARED_FROM else 1
        self._executor = ThreadPoolExecutor(self._threads - 1) if self._threads > 1 else None
        self._scratch = [np.empty(min(SLICE, parameters), dtype) for _ in range(self._threads)]

    def average(self, blocks: Sequence[Block], shards: int) -> Mean:
        """The mean of what all shards together brought; the blocks' vectors are used up.

        Blocks are added in the tree over shards and divided once, by the weight of all rows. Averaging the shards'
        means instead would weigh a row by the size of its shard. Statistics know no weights: each row counts once.
        """
        by_first = {block.first: block.total for block in blocks}
        additions, _ = merges(((block.first, block.width) for block in blocks), shards)
        sums = {first: total.sums for first, total in by_first.items()}
        for left, right in additions:
            sums[left] = sums[left] + sums[right]
        pairs = [(by_first[left].vector, by_first[right].vector) for left, right in additions]
        mean = by_first[0].vector
        share, share_of_kept = (1 / divisor if divisor else 0.0 for divisor in (sums[0].weight, sums[0].count))

        def add_and_divide(part: slice, _scratch: Array) -> float:
            for left, right in pairs:
                left[part] += right[part]
            piece = mean[part]
            if part.start >= self._learned:
                piece *= share_of_kept
                return 0.0
            piece *= share
            return float(np.dot(piece, piece))

        return Mean(mean, sums[0], math.fsum(_finite(self._each(add_and_divide))))

    def apply(self, optimizer: Optimizer, params: Array, mean: Mean, carried: Carried, rate: float, step: int) -> None:
        """Takes a step, in place."""

        def update(part: slice, scratch: Array) -> None:
            piece = mean.vector[part]
            if part.start >= self._learned:
                params[part] += piece
                return
            vectors = {name: vector[part] for name, vector in carried.items()}
            optimizer.update(params[part], piece, vectors, rate, step, scratch[: len(piece)])

        self._each(update)

    def _each(self, work: Callable[[slice, Array], T]) -> list[T]:
        """Does some work on every slice; the results in order."""

        def on(slices: Sequence[slice], scratch: Array) -> list[T]:
            # Every thread has settings of its own. What overflows is looked for in the results.
            with np.errstate(over="ignore", invalid="ignore"):
                return [work(part, scratch) for part in slices]

        if self._executor is None:
            return on(self._slices, self._scratch[0])
        half = len(self._slices) // 2
        other = self._executor.submit(on, self._slices[half:], self._scratch[1])
        return on(self._slices[:half], self._scratch[0]) + other.result()


def check_finite(mean: Mean, network: Network, step: int) -> None:
    """Raises Diverged, naming the first layer that shows it, if the step must not be applied."""
    if math.isfinite(mean.sums.loss) and math.isfinite(mean.squared_norm):
        return
    broken = first_broken(mean.vector, network)
    if math.isfinite(mean.sums.loss) and not broken:
        return  # the gradient is large, but only its square is beyond single precision
    where = f"the gradient of {broken}" if broken else "the loss"
    raise Diverged(
        f"{where} is NaN or infinite in step {step + 1} (the mean loss there: {mean.sums.mean_loss:g}); "
        f"the step was not applied. {ADVICE}"
    )


def _finite(squares: list[float]) -> list[float]:
    """fsum refuses infinities of both signs; squares have none, but NaN must come out as NaN."""
    return [math.nan] if any(math.isnan(square) for square in squares) else squares
