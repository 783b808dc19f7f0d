"""The measured networks as Chainrule's own tasks, and tasks that compute nothing."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from benchmarks.cases import Case
from service.training.optimizers import Adam, Optimizer, Sgd
from worker import health
from worker.arrays import Array
from worker.gradient import Gradient, Sums
from worker.layers import Dense, Layer, ReLU
from worker.losses import SoftmaxCrossEntropy
from worker.network import Network
from worker.shards import Shards
from worker.task import Data, Task


def synthetic(case: Case) -> tuple[Array, Array]:
    """Inputs (rows, features or words) and classes (rows,) that mean nothing, the same each time."""
    rng = np.random.default_rng(0)
    if case.length:
        x: Array = rng.integers(case.units[0], size=(case.rows, case.length), dtype=np.int32)
    else:
        x = rng.random((case.rows, case.units[0]), np.float32)
    return x, rng.integers(case.units[-1], size=case.rows)


def mlp_task(case: Case, shards: int) -> Task:
    """What the workers of a case compute."""
    layers: list[Layer] = []
    for units in case.units[1:]:
        layers += [Dense(units), ReLU()]
    network = Network(tuple(layers[:-1]), (case.units[0],))
    return Task(network, SoftmaxCrossEntropy(), Shards(case.rows, 0.0, case.batch, shards, 0))


def optimizer_of(case: Case) -> Optimizer:
    """The rule of a case."""
    return Sgd() if case.optimizer == "sgd" else Adam()


@dataclass(frozen=True)
class NoArithmetic(Task):
    """A task whose gradients are whatever was in memory: what is left of a step is what it costs beyond arithmetic."""

    def gradient(
        self,
        data: Data,  # noqa: ARG002 - nothing is read
        params: Array,
        step: int,  # noqa: ARG002 - every step is the same
        shard: int,  # noqa: ARG002 - and every shard
        out: Array | None = None,
        *,
        look: bool = False,
    ) -> Gradient:
        seen = np.zeros(health.size(self.network)) if look else None
        sums = Sums(0.0, {"accuracy": np.zeros(2)}, 1, 1, seen)
        return Gradient(np.zeros_like(params) if out is None else out, sums)

    def foresee(self, data: Data, dtype: np.dtype[np.floating], step: int, shards: Iterable[int]) -> None:
        """Nothing is read."""


def no_arithmetic(parameters: int, shards: int) -> NoArithmetic:
    """A task of so many parameters, a hundred to a unit of its only layer."""
    network = Network((Dense(parameters // 100),), (99,))  # and a bias each
    return NoArithmetic(network, SoftmaxCrossEntropy(), Shards(10 * shards, 0.0, shards, shards, 0))
