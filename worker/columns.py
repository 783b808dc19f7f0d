"""A column in blocks, of which only those in use are at hand.

A dataset lies in the object store in blocks of neighbouring rows. A worker holds a few of them as views, without a
copy, and lets the oldest go, so that what it needs is bounded however large the dataset is.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from worker.arrays import Array, Rows

BLOCK_BYTES = 16 << 20
"""About how large a block is: a batch takes rows from all blocks of its window, and each costs about 7 us."""

WHOLE_BYTES = 64 << 20
"""Up to which size a column is a single block."""


def block_rows(row_bytes: int, rows: int, held_bytes: int) -> int:
    """How many rows of a column are a block, where a worker may hold `held_bytes` of it."""
    if rows * row_bytes <= min(WHOLE_BYTES, held_bytes):
        return rows
    return max(1, min(BLOCK_BYTES, held_bytes // 4) // max(row_bytes, 1))


@dataclass(frozen=True)
class BlockedColumn:
    """Gives rows as an array would. `fetch` brings a block by its number."""

    fetch: Callable[[int], Array]
    rows_a_block: int
    held_bytes: int
    """How much is held at the most, but always one block."""
    _held: OrderedDict[int, Array] = field(default_factory=OrderedDict)

    def __getitem__(self, rows: Rows, /) -> Array:
        """A copy of some rows, in the order asked for."""
        if not len(rows):
            return self._block(0)[rows]
        first, last = int(rows.min()) // self.rows_a_block, int(rows.max()) // self.rows_a_block
        if first == last:
            return self._block(first)[rows - first * self.rows_a_block if first else rows]
        # A position in the order of the rows tells which stretch of it lies in which block.
        order = rows.argsort()
        ascending = rows[order]
        ends = ascending.searchsorted(np.arange(first + 1, last + 2) * self.rows_a_block).tolist()
        result: Array | None = None
        start = 0
        for number, end in enumerate(ends, start=first):
            if end > start:
                block = self._block(number)
                if result is None:
                    result = np.empty((len(rows), *block.shape[1:]), block.dtype)
                result[order[start:end]] = block[ascending[start:end] - number * self.rows_a_block]
                start = end
        assert result is not None  # noqa: S101 - there are at least two blocks
        return result

    def _block(self, number: int) -> Array:
        if number not in self._held:
            self._held[number] = self.fetch(number)
            while len(self._held) > 1 and sum(block.nbytes for block in self._held.values()) > self.held_bytes:
                self._held.popitem(last=False)
        self._held.move_to_end(number)
        return self._held[number]
