"""Rows in the order of time as windows: some rows one after the other, and the target that lies ahead of them.

A window with its target is what a row is elsewhere. Neighbours share most of their rows, so which of them are trained
on and which held out is decided here: what is to be predicted must never have been a target of the training.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from worker.arrays import Array
from worker.errors import InvalidValue

MOST_ROWS = 10_000


@dataclass(frozen=True)
class Windows:
    """A window of `length` rows, and `targets` rows of the target, of which the first is `ahead` after its last."""

    length: int
    ahead: int = 1
    targets: int = 1

    def __post_init__(self) -> None:
        for name in ("length", "ahead", "targets"):
            if not 1 <= getattr(self, name) <= MOST_ROWS:
                raise InvalidValue(name, f"is {getattr(self, name)}; must be 1 to {MOST_ROWS:,} rows")

    @property
    def span(self) -> int:
        """How many rows there are from a window's first to its target's last."""
        return self.length + self.ahead + self.targets - 1

    def count(self, rows: int) -> int:
        """How many windows so many rows have, each with its target."""
        return max(rows - self.span + 1, 0)

    def usable(self, rows: int, *, holds_out: bool) -> int:
        """How many of them can be used; those between the last trained on and the first held out can't be."""
        return max(self.count(rows) - (self.targets - 1 if holds_out else 0), 0)

    def parts(self, rows: int, trained_on: int, held_out: int) -> tuple[range, range]:
        """The first windows, that are trained on, and the last ones, that are held out."""
        count = self.count(rows)
        return range(trained_on), range(count - held_out, count)

    def covered(self, windows: range) -> range:
        """The rows that some windows and their targets are made of."""
        return range(windows.start, windows.stop - 1 + self.span)

    def inputs(self, rows: Array, windows: range) -> Array:
        """The rows of some windows, (windows, length, ...), as a view of all rows (rows, ...)."""
        taken = rows[windows.start : windows.stop + self.length - 1]
        return np.moveaxis(np.lib.stride_tricks.sliding_window_view(taken, self.length, axis=0), -1, 1)

    def outcomes(self, values: Array, windows: range) -> Array:
        """Their targets, (windows, targets, ...), of all values (rows, ...); (windows, ...) where that is one row."""
        start = windows.start + self.length - 1 + self.ahead
        taken = values[start : start + len(windows) + self.targets - 1]
        found = np.moveaxis(np.lib.stride_tricks.sliding_window_view(taken, self.targets, axis=0), -1, 1)
        return found[:, 0] if self.targets == 1 else found


def in_pieces(parts: tuple[range, ...], size: int) -> Iterator[range]:
    """The same windows in the same order, at most `size` at a time."""
    for part in parts:
        for start in range(part.start, part.stop, size):
            yield range(start, min(start + size, part.stop))
