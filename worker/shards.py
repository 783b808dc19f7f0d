"""Which rows belong to which shard of which step.

Pure functions of the seed and the step's number, so that a worker needs a few bytes to know what to compute, and a
restart picks up the very same rows.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

from worker.arrays import Rows
from worker.seeds import Purpose, generator


@dataclass(frozen=True)
class Shards:
    """How the rows of a dataset are dealt out: held out, shuffled every epoch, cut into batches, cut into shards."""

    rows: int
    validation_fraction: float
    batch_size: int
    shards: int
    seed: int

    @property
    def validation_count(self) -> int:
        """How many rows are held out: rounded to the nearest, but at least one is left to train on."""
        return min(round(self.rows * self.validation_fraction), self.rows - 1)

    @property
    def training_count(self) -> int:
        """How many rows are trained on."""
        return self.rows - self.validation_count

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
        order = _epoch_order(self.seed, epoch, self.training_count)
        batch = order[index * self.batch_size : (index + 1) * self.batch_size]
        return self._split[self.validation_count :][_part(batch, shard, self.shards)]

    def validation(self, shard: int) -> Rows:
        """One shard's part of the rows that are held out."""
        return _part(self._split[: self.validation_count], shard, self.shards)

    @cached_property
    def _split(self) -> Rows:
        """All rows in the order of the draw that decides which are held out: those first."""
        order = generator(self.seed, Purpose.SPLIT).permutation(self.rows)
        order.flags.writeable = False
        return order


def _part(rows: Rows, shard: int, shards: int) -> Rows:
    """The shard's slice: sizes differ by one at most, and add up."""
    return rows[len(rows) * shard // shards : len(rows) * (shard + 1) // shards]


@lru_cache(maxsize=4)
def _epoch_order(seed: int, epoch: int, count: int) -> Rows:
    """The order in which an epoch takes the training rows. Cached, since every step of the epoch asks for it."""
    order = generator(seed, Purpose.ORDER, epoch).permutation(count)
    order.flags.writeable = False
    return order
