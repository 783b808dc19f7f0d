"""What one more epoch means for a job: whether it is the best so far, and for how long there was none that is better.

The same epochs give the same answers, also after a stop: what is remembered is part of the training state.
"""

import math
from dataclasses import replace

from service.jobs.events import EpochCompleted
from service.jobs.spec import JobSpec
from service.training.state import TrainingState, Weightless

MOST_EPOCHS = 1_000
"""How many epochs of a job are told of; of more, every second, third and so on, and the last. Of one that a client
ends, of which nobody knows how many it will have: every second from there on, every fourth from twice as many on."""


def is_told(epoch: int, spec: JobSpec) -> bool:
    """Whether an epoch that isn't the last becomes an event."""
    if spec.online is not None:
        return epoch % (1 << ((epoch - 1) // MOST_EPOCHS).bit_length()) == 0
    return epoch % math.ceil(spec.epochs / MOST_EPOCHS) == 0


def judge(state: TrainingState, spec: JobSpec, epoch: EpochCompleted) -> EpochCompleted:
    """Compares an epoch with those before it, and notes in the state how it did. Returns it with the best's number.

    Raises Weightless if no row of it counted; but what a client sends is its own affair.
    """
    if not (state.epoch.weight or spec.online):
        raise Weightless(
            f"the {state.epoch.count:,} rows that are trained on all weigh 0: those that count are held out, or of no "
            "class that has a weight. Other weights, another seed or another split would leave some to learn from"
        )
    loss = epoch.validation_loss
    if loss is None:
        return epoch
    early, plateau = spec.early_stopping, spec.schedule.plateau
    cost = early.cost(loss, epoch.validation_scores) if early else loss
    if cost < state.best_loss:
        epoch = replace(epoch, best_epoch=epoch.epoch)
        state.best_loss, state.best_epoch = cost, epoch
    if early:
        state.streak = state.streak.after(cost, early.min_delta)
    if plateau:
        state.plateau = state.plateau.after(loss, plateau.min_delta)
        if state.plateau.epochs >= plateau.patience:
            state.plateau = replace(state.plateau, epochs=0)
            state.plateau_factor = max(state.plateau_factor * plateau.factor, plateau.floor)
    return replace(epoch, best_epoch=state.best_epoch.epoch if state.best_epoch else 0)


def is_best(epoch: EpochCompleted) -> bool:
    """Whether there was none as good before."""
    return epoch.best_epoch == epoch.epoch


def is_last(state: TrainingState, spec: JobSpec, epoch: EpochCompleted) -> bool:
    """Whether the job ends with an epoch."""
    early = spec.early_stopping
    return epoch.epoch == spec.epochs or (early is not None and state.streak.epochs >= early.patience)


def why_early(state: TrainingState, spec: JobSpec, epoch: EpochCompleted) -> str:
    """For people, why a job ended with an epoch that is not its last; "" if it is."""
    early, best = spec.early_stopping, state.best_epoch
    if early is None or best is None or epoch.epoch == spec.epochs:
        return ""
    value = best.validation_scores[early.score] if early.score else best.validation_loss
    watched = early.score or "loss"
    return f"stopped early at epoch {epoch.epoch}: best validation {watched} {value:.6g} at epoch {best.epoch}"
