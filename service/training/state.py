"""What a job knows between two steps."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from service.jobs.events import EpochCompleted, Reported
from service.jobs.spec import JobSpec
from service.training.arrivals import Taken
from service.training.optimizers import Carried
from service.training.stopping import Streak
from worker.arrays import Array
from worker.gradient import Gradient, Sums
from worker.network import Network
from worker.scores import Scores, nothing
from worker.tables import TableGradient
from worker.task import Computation

ADVICE = "A smaller learning rate usually helps, as do inputs of about unit size"


@dataclass
class TrainingState:
    """Everything a job needs to go on as if it had never stopped. A checkpoint is this, written down."""

    step: int
    """How many steps were applied."""
    params: Array
    carried: Carried
    epoch: Sums
    """Loss and scores of this epoch's rows so far, each taken in its step."""
    rate_scale: float = 1.0
    """What the learning rate is multiplied by: halved at every roll-back."""
    best_loss: float = math.inf
    """The least validation loss so far; or minus the best score, where the job stops early by a score."""
    unacknowledged: tuple[Reported, ...] = ()
    """Events that may not have reached the service when this was written down."""
    best_epoch: EpochCompleted | None = None
    """How the epoch went to which that belongs."""
    streak: Streak = field(default_factory=Streak)
    """For how long there was none that was better by enough to go on."""
    plateau: Streak = field(default_factory=Streak)
    """The same, for the schedule that follows the validation loss."""
    plateau_factor: float = 1.0
    """What that schedule multiplies the learning rate by."""
    pending: Gradient | None = None
    """The sum over the steps since the last update, of a job whose updates take several."""
    taken: tuple[Taken, ...] = ()
    """The newest steps of a job that a client sends mini-batches to: as many as it may not have been told of."""
    last_epoch: EpochCompleted | None = None
    """The newest epoch of such a job, which may end at any moment."""


class Diverged(Exception):
    """Something of a step is NaN or infinite: its loss, its gradient, or what came of it."""


class Weightless(Exception):
    """No row that is trained on counts, so that nothing can be learned."""


def first_state(spec: JobSpec, task: Computation, params: Array, initial: Mapping[str, Array]) -> TrainingState:
    """What a job begins with, its parameters written into `params`; those in `initial`, by name, as they are there."""
    params[...] = task.network.initial(spec.seed, params.dtype)
    for slot in task.network.slots:
        if slot.name in initial:
            slot.view(params)[...] = initial[slot.name]
    carried = {name: np.zeros_like(params) for name in spec.optimizer.carries}
    pending = nothing_pending(task, np.zeros(task.network.dense, params.dtype)) if spec.accumulate > 1 else None
    return TrainingState(0, params, carried, no_sums(task.training_scores), pending=pending)


def nothing_pending(task: Computation, vector: Array) -> Gradient:
    """The sum over no steps, with a vector of zeros (dense,)."""
    sizes = (table.slot.parameter.shape[1] for table in task.network.tables)
    tables = tuple(TableGradient(np.empty(0, np.intp), np.empty((0, size), vector.dtype)) for size in sizes)
    return Gradient(vector, no_sums(task.training_scores), tables)


def no_sums(scores: Scores) -> Sums:
    """Sums over no rows."""
    return Sums(0.0, nothing(scores), 0, 0.0)


def check_state(state: TrainingState, network: Network) -> None:
    """Raises Diverged, naming the first parameter that shows it, if the state can't be gone on from."""
    pending = [state.pending.vector] if state.pending else []
    for vector in (state.params, *state.carried.values(), *pending):
        if broken := first_broken(vector, network):
            raise Diverged(f"step {state.step} made {broken} infinite; the last checkpoint is from before. {ADVICE}")


def first_broken(vector: Array, network: Network) -> str:
    """The name of the first parameter whose part of a vector (dense,) or (parameters,) is not finite; "" if all are."""
    if np.isfinite(vector).all():
        return ""
    return next(slot.name for slot in network.slots if not np.isfinite(slot.view(vector)).all())
