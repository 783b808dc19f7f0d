"""Which rows belong to which shard of which step.

Pure functions of the seed and the step's number, so that a worker needs a few bytes to know what to compute, and a
restart picks up the very same rows.
"""

import math
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

import numpy as np

from worker.arrays import Rows
from worker.seeds import Purpose, generator


class Split(Enum):
    """Which rows are held out: some at random, or the last ones, of data in the order of time; as in the contract."""

    RANDOM = "RANDOM"
    LAST = "LAST"


@dataclass(frozen=True)
class Shards:
    """How the rows of a dataset are dealt out: held out, shuffled every epoch, cut into batches, cut into shards."""

    rows: int
    validation_fraction: float
    batch_size: int
    shards: int
    seed: int
    window: int = 0
    """How many neighbouring rows are shuffled among themselves; 0 for all. For datasets larger than memory, of which
    only a part can be at hand: the windows too come in random order, but a batch takes from one or two of them."""
    split: Split = Split.RANDOM

    @property
    def validation_count(self) -> int:
        """How many rows are held out: rounded to the nearest, but at least one is left to train on."""
        return min(round(self.rows * self.validation_fraction), self.rows - 1)

    @property
    def training_count(self) -> int:
        """How many rows are trained on."""
        return self.rows - self.validation_count

    @property
    def most_rows(self) -> int:
        """How many rows a shard has at the most."""
        return math.ceil(min(self.batch_size, self.training_count) / self.shards)

    @property
    def steps_per_epoch(self) -> int:
        """How many batches an epoch has; the last takes what is left."""
        return math.ceil(self.training_count / self.batch_size)

    def samples(self, steps: int) -> int:
        """How many rows the first `steps` steps take."""
        epochs, rest = divmod(steps, self.steps_per_epoch)
        return epochs * self.training_count + min(rest * self.batch_size, self.training_count)

    def training(self, step: int, shard: int) -> Rows:
        """The rows of one shard of step `step`, counted from 0 over all epochs."""
        epoch, index = divmod(step, self.steps_per_epoch)
        order = _epoch_order(self.seed, epoch, self.training_count, self.window)
        batch = order[index * self.batch_size : (index + 1) * self.batch_size]
        _, trained_on = self._split
        return trained_on[_part(batch, shard, self.shards)]

    def of_batch(self, shard: int) -> Rows:
        """The rows of one shard within a mini-batch that comes whole, in the order in which they came."""
        return _part(np.arange(self.batch_size), shard, self.shards)

    @property
    def training_rows(self) -> Rows:
        """All rows that are trained on, in the order of the dataset."""
        return self._split[1]

    def validation(self, shard: int) -> Rows:
        """One shard's part of the rows that are held out."""
        held_out, _ = self._split
        return _part(held_out, shard, self.shards)

    @property
    def _split(self) -> tuple[Rows, Rows]:
        return _split(self.seed, self.rows, self.validation_count, self.split)


def _part(rows: Rows, shard: int, shards: int) -> Rows:
    """The shard's slice: sizes differ by one at most, and add up."""
    return rows[len(rows) * shard // shards : len(rows) * (shard + 1) // shards]


@lru_cache(maxsize=8)
def _split(seed: int, rows: int, held_out: int, split: Split) -> tuple[Rows, Rows]:
    """The rows that are held out and those that are trained on; each in the order of the dataset.

    This and the next are cached, since every step asks for them. They give no writable view of what is cached.
    """
    if split is Split.LAST:
        everything = np.arange(rows)
        return _frozen(everything[rows - held_out :]), _frozen(everything[: rows - held_out])
    drawn = generator(seed, Purpose.SPLIT).permutation(rows)
    return _frozen(np.sort(drawn[:held_out])), _frozen(np.sort(drawn[held_out:]))


@lru_cache(maxsize=8)
def _epoch_order(seed: int, epoch: int, count: int, window: int) -> Rows:
    """The order in which an epoch takes the training rows."""
    rng = generator(seed, Purpose.ORDER, epoch)
    if not 0 < window < count:
        return _frozen(rng.permutation(count))
    starts = rng.permutation(np.arange(0, count, window))
    return _frozen(np.concatenate([start + rng.permutation(min(window, count - start)) for start in starts]))


def _frozen(rows: Rows) -> Rows:
    rows.flags.writeable = False
    return rows
