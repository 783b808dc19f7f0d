"""Tasks for workers in other processes: one to compute, and some for tests to look into."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worker.arrays import Array
from worker.columns import BlockedColumn
from worker.gradient import Gradient, Sums
from worker.layers import Dense, ReLU
from worker.losses import SoftmaxCrossEntropy
from worker.network import Network
from worker.scores import nothing
from worker.shards import Shards
from worker.task import Data, Task

SECONDS = 60.0
"""The deadline of every wait: far beyond what any of them takes."""

ROWS, FEATURES, CLASSES = 120, 6, 3

NETWORK = Network((Dense(5), ReLU(), Dense(CLASSES)), (FEATURES,))
LOSS = SoftmaxCrossEntropy()
# 50 rows a step in 7 shards, of 7 and 8 rows; the last step of an epoch has less.
SHARDS = Shards(ROWS, validation_fraction=0.25, batch_size=50, shards=7, seed=3)
TASK = Task(NETWORK, LOSS, SHARDS)
PARAMS = NETWORK.initial(seed=4)
PARAMS.flags.writeable = False


_random = np.random.default_rng(5)
INPUTS = _random.standard_normal((ROWS, FEATURES)).astype(np.float32)
TARGETS = _random.integers(CLASSES, size=ROWS)
DATA = Data(INPUTS, TARGETS)


@dataclass(frozen=True)
class HeldTask(Task):
    """Its gradients take until the file "hold" in its directory is gone; meanwhile files tell who is at them."""

    directory: Path

    def gradient(
        self, data: Data, params: Array, step: int, shard: int, out: Array | None = None, *, look: bool = False
    ) -> Gradient:
        (self.directory / f"began-{os.getpid()}").touch()
        until(lambda: not self.hold.exists())
        return super().gradient(data, params, step, shard, out, look=look)

    @property
    def hold(self) -> Path:
        """The file that keeps workers from going on."""
        return self.directory / "hold"

    def began(self) -> set[int]:
        """The processes that have begun to compute, so far."""
        return {int(path.name.removeprefix("began-")) for path in self.directory.glob("began-*")}


@dataclass(frozen=True)
class BrokenTask(Task):
    """Its gradients have a mistake in them."""

    def gradient(
        self,
        data: Data,  # noqa: ARG002
        params: Array,  # noqa: ARG002
        step: int,  # noqa: ARG002
        shard: int,
        out: Array | None = None,  # noqa: ARG002
        *,
        look: bool = False,  # noqa: ARG002
    ) -> Gradient:
        raise ZeroDivisionError(f"a mistake in shard {shard}")


@dataclass(frozen=True)
class LookingTask(Task):
    """Tells what the data looks like where it is computed: whether all of it is plain arrays that can't be written."""

    def evaluate(self, data: Data, params: Array, shard: int) -> Sums:  # noqa: ARG002
        blocks = [column.fetch(0) for column in (data.inputs, data.targets) if isinstance(column, BlockedColumn)]
        views = [type(block) is np.ndarray and not block.flags.writeable for block in blocks]
        return Sums(0.0, nothing(self.scores) | {"accuracy": np.array([views == [True, True], 1.0])}, 1, 1)


@dataclass(frozen=True)
class UnreadableTask(Task):
    """Pickled, it can't be unpickled, so that a worker in another process can't join."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return int, ("not a number",)


def until(condition: Callable[[], object]) -> None:
    """Waits until the condition holds. Raises TimeoutError."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {SECONDS:g} seconds")
        time.sleep(0.02)
