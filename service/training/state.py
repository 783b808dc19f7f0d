"""What a job knows between two steps."""

import math
from dataclasses import dataclass, field

import numpy as np

from service.jobs.events import EpochCompleted, Reported
from service.training.optimizers import Carried
from service.training.stopping import Streak
from worker.arrays import Array
from worker.gradient import Gradient, Sums
from worker.network import Network
from worker.scores import Scores, nothing

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


class Diverged(Exception):
    """Something of a step is NaN or infinite: its loss, its gradient, or what came of it."""


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
