"""What a job knows between two steps, and the step itself as a pure function."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from service.training.optimizers import Optimizer, OptimizerState
from worker.arrays import Array
from worker.gradient import Gradient, Sums, tree_sum
from worker.network import Network


@dataclass(frozen=True)
class TrainingState:
    """Everything a job needs to go on as if it had never stopped. A checkpoint is this, written down."""

    step: int
    """How many steps were applied."""
    params: Array
    optimizer: OptimizerState
    epoch: Sums
    """Loss and scores of this epoch's rows so far, each taken in its step."""


ADVICE = "A smaller learning rate usually helps, as do inputs of about unit size"


class Diverged(Exception):
    """Something of a step is NaN or infinite: its loss, its gradient, or what would come of it."""


def no_sums(scores: Iterable[str]) -> Sums:
    """Sums over no rows."""
    return Sums(0.0, dict.fromkeys(scores, 0.0), 0)


def average(gradients: Sequence[Gradient]) -> Gradient:
    """The mean gradient over the rows of all shards, (parameters,), with the sums it came from.

    Shards are added in the fixed tree and divided once, by the count of all. Averaging the shards' means instead would
    weigh a row by the size of its shard.
    """
    total = tree_sum(gradients)
    return Gradient(total.vector / np.asarray(total.sums.count, total.vector.dtype), total.sums)


def apply(state: TrainingState, mean: Gradient, optimizer: Optimizer, learning_rate: float) -> TrainingState:
    """The state after one more step. A value that overflows becomes infinite without a warning."""
    with np.errstate(over="ignore", invalid="ignore"):
        direction, carried = optimizer.direction(mean.vector, state.optimizer, state.step)
        params = state.params - np.asarray(learning_rate, direction.dtype) * direction
    return TrainingState(state.step + 1, params, carried, state.epoch + mean.sums)


def check_finite(mean: Gradient, network: Network, step: int) -> None:
    """Raises Diverged, naming the first layer that shows it, if the step must not be applied."""
    if np.isfinite(mean.sums.loss) and np.isfinite(mean.vector).all():
        return
    broken = _first_broken(mean.vector, network)
    where = f"the gradient of {broken}" if broken else "the loss"
    raise Diverged(
        f"{where} is NaN or infinite in step {step + 1} (the mean loss there: {mean.sums.loss / mean.sums.count:g}); "
        f"the step was not applied. {ADVICE}"
    )


def check_applied(after: TrainingState, network: Network) -> None:
    """Raises Diverged, naming the first layer that shows it, if a step led to something that can't be gone on from."""
    for vector in (after.params, *after.optimizer.values()):
        if broken := _first_broken(vector, network):
            raise Diverged(f"step {after.step} would make {broken} infinite; it was not applied. {ADVICE}")


def _first_broken(vector: Array, network: Network) -> str:
    """The name of the first parameter whose part of a vector is not finite; "" if all is well."""
    if np.isfinite(vector).all():
        return ""
    return next(slot.name for slot in network.slots if not np.isfinite(slot.view(vector)).all())
