"""What is wrong with what is learned, by the losses and scores of the newest epochs.

A loss means something beside others of the same job alone, so "large" and "small" are told by the first epoch's. Where
episodes take the place of rows there is no such loss, and nothing is told.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from service.jobs.events import EpochCompleted, Failed, RolledBack, Succeeded
from service.jobs.health import Diagnosis
from service.jobs.job import Job
from service.jobs.past import MOST_EPOCHS
from service.training.diagnostics.finding import Finding, Findings, loss, mean, number, percent, ratio, shows
from service.training.diagnostics.layers import looks_of, update_ratios
from service.training.state import ADVICE
from worker.losses import BinaryCrossEntropy

FEWEST_EPOCHS = 3
"""Nothing is told of fewer: one epoch may be worse than the one before, and so may two."""

LOST, REGAINED = 10.0, 5.0
"""So many times the lowest loss, and no better than the first epoch: what had been learned is lost."""
WORSE = 2.0
"""Or so many times the first epoch's. It is over once it is neither half as bad: no worse than that was."""

OVERFITTED, REFITTED = 0.2, 0.1
"""By this part of its lowest the validation loss has risen, for as long as FEWEST_EPOCHS. Validation losses go up and
down by less, and the first rise isn't always the last (Prechelt 1998, "Early Stopping - But When?")."""
VISIBLE = 0.05
"""The least rise, as a part of the first epoch's validation loss: near 0 small numbers differ by large factors."""

FLAT, FALLING = 0.01, 0.02
"""A loss that over half of the remembered epochs fell by less than this part of it has stopped falling."""
POOR, GOOD = 0.75, 0.95
"""Accuracy below which training rows aren't learned, and from which on nothing more is to be wished for."""
POOR_R2 = 0.5
"""For numbers: the part of their variance that is told."""
POOR_LOSS, GOOD_LOSS = 0.5, 0.05
"""Without such scores: what is left of the first epoch's loss."""
FULL_RATE = 0.1
"""A schedule that has come down to this part of the rate means the loss to stop falling."""

JUMPS, CALM = 0.1, 0.05
"""How far the loss goes up, and down again, from epoch to epoch in the mean, as a part of it."""
LARGE_UPDATE = 0.1
"""An update of this part of the parameters replaces them every ten steps: a hundred times the customary 1e-3 (Karpathy,
notes of Stanford's CS231n)."""
BRISK_UPDATE = 0.01
"""Losses may jump for other reasons, such as few rows; the rate is to blame with updates of ten times the customary."""

SMALL_UPDATE, FARTHEST = 1e-5, 0.01
"""Updates of a hundredth of the customary 1e-3; or with which all steps of the job together change the parameters by so
small a part of them, when every step goes the same way."""
SLOW_FALL, FAST_FALL = 0.05, 0.1
"""And the loss fell by no more than this part of the first epoch's: had the rate been right, most of it would be gone
(Smith 2018, "A disciplined approach to neural network hyper-parameters", finds rates by where it falls fastest)."""

RARE, FREQUENT = 0.55, 0.7
"""F1 as a part of the accuracy: about 1 with classes of equal size, 0.55 where one of two has 82 % of the rows and is
told of all."""
RIGHT, BINARY_RIGHT = 0.6, 0.7
"""The accuracy from which on this can't come about with classes of equal size. F1 of yes alone needs more."""
FEWEST_ROWS = 5
"""Of fewer held-out rows of a class it is no wonder that none is told."""


def divergence(job: Job, held: Diagnosis | None) -> Findings:
    """A step that had to be undone not long ago, or a loss that has risen beyond where it began."""
    back, epochs = job.rolled_back, job.past.epochs
    if back and sum(epoch.step > back.step for epoch in epochs) < FEWEST_EPOCHS:
        return [_undone(job, back)]
    first, lowest = job.past.first, job.past.lowest
    if first is None or lowest is None or len(epochs) < FEWEST_EPOCHS:
        return None
    losses = [epoch.training_loss for epoch in epochs[-FEWEST_EPOCHS + 1 :]]
    factors = [max(ratio(each, first.training_loss) / WORSE, _lost(each, first, lowest)) for each in losses]
    if (
        job.spec.environment
        or lowest.training_loss <= 0
        or not shows(factors, 1.0, REGAINED / LOST, held=held is not None)
    ):
        return []
    newest = epochs[-1]
    evidence = (
        f"the training loss is {loss(newest.training_loss)} after epoch {newest.epoch}, "
        f"{number(ratio(newest.training_loss, lowest.training_loss))} times its lowest, which was "
        f"{loss(lowest.training_loss)} after epoch {lowest.epoch}"
    )
    return [Finding(1 + math.log10(max(min(factors), 1.0)), evidence, _SMALLER_STEPS)]


def failure(job: Job, failed: Failed) -> Findings:
    """The end of a job that couldn't go on."""
    return (
        [Finding(1.0, _evidence(job, failed.message), _SMALLER_STEPS)] if failed.reason == "TRAINING_DIVERGED" else []
    )


def overfitting(job: Job, held: Diagnosis | None) -> Findings:
    """The validation loss has risen for some epochs, while that of the training rows went on falling."""
    first, best, epochs = job.past.first, job.past.best, job.past.epochs[-FEWEST_EPOCHS:]
    if first is None or best is None or len(epochs) < FEWEST_EPOCHS or job.spec.environment:
        return None
    lowest, began = best.validation_loss or 0.0, first.validation_loss or 0.0
    losses = [epoch.validation_loss or 0.0 for epoch in epochs]
    newest, known = epochs[-1], held is not None
    rises = [ratio(each - lowest, lowest) if each >= lowest > 0 else 0.0 for each in losses]
    visible = known or min(losses) - lowest >= VISIBLE * began
    falls = newest.training_loss < min(best.training_loss, losses[-1])
    trained = [epoch.training_loss for epoch in job.past.epochs]
    steady = known or (
        _rises(trained) <= len(trained) / 3 and max(update_ratios(job).values(), default=0) < LARGE_UPDATE
    )
    if not (shows(rises, OVERFITTED, REFITTED, held=known) and visible and falls and steady):
        return []
    evidence = (
        f"the validation loss rose from {loss(lowest)} after epoch {best.epoch} to {loss(losses[-1])} after epoch "
        f"{newest.epoch}, while the training loss fell from {loss(best.training_loss)} to {loss(newest.training_loss)}"
    )
    stop = "" if job.spec.early_stopping else "Stop early (early_stopping), which keeps the best epoch; "
    advice = f"{stop}more data, dropout, weight decay or a smaller network help it to learn what is common to all rows"
    return [Finding(mean(rises), evidence, advice[0].upper() + advice[1:])]


def underfitting(job: Job, held: Diagnosis | None) -> Findings:
    """The loss no longer falls, and the training rows are learned badly."""
    if (flat := _flat(job, held)) is None:
        return None
    if not flat or not _is_poor(job, job.past.epochs[-1]):
        return []
    advice = (
        "Use a larger network or other features, less dropout and decay, and another learning rate; "
        "if none of it helps, the inputs may not tell more of the targets"
    )
    return [Finding(1.0, f"{_told_flat(job)}, and {_level(job)}", advice)]


def plateau(job: Job, held: Diagnosis | None) -> Findings:
    """The loss no longer falls, at a level that leaves something to be wished for."""
    if (flat := _flat(job, held)) is None:
        return None
    if not flat or _is_poor(job, job.past.epochs[-1]) or _is_good(job, job.past.epochs[-1]):
        return []
    advice = (
        "Lower the learning rate (a schedule such as cosine_decay or reduce_on_plateau does it), or raise it if "
        "updates are small; if neither helps, this may be all that the network or the data allow: stop here"
    )
    return [Finding(1.0, f"{_told_flat(job)}, and {_level(job)}", advice)]


def learning_rate_too_high(job: Job, held: Diagnosis | None) -> Findings:
    """The loss jumps about, or doesn't fall while the parameters are replaced every few steps."""
    epochs, updates, known = job.past.epochs, update_ratios(job), held is not None
    if len(epochs) < FEWEST_EPOCHS or not updates or looks_of(job) is None or job.spec.environment:
        return None
    layer, update = max(updates.items(), key=lambda item: item[1])
    losses = [epoch.training_loss for epoch in epochs]
    roughness = _roughness(losses)
    rough = len(losses) > FEWEST_EPOCHS and _rises(losses) > 1 and roughness >= JUMPS
    jumps = rough and update >= BRISK_UPDATE
    stays = update >= LARGE_UPDATE and losses[-1] > (1 - SLOW_FALL) * losses[-FEWEST_EPOCHS]
    if known:
        jumps = roughness >= CALM and update >= BRISK_UPDATE / 2
        stays = stays or (update >= LARGE_UPDATE / 2 and losses[-1] > (1 - FAST_FALL) * losses[-FEWEST_EPOCHS])
    good = [_is_good(job, epoch) for epoch in epochs[-FEWEST_EPOCHS:]]
    if (all(good) if known else any(good)) or not (jumps or stays):
        return []
    how = f"goes up and down by {percent(roughness)}" if jumps else "doesn't fall"
    evidence = (
        f"the training loss {how} ({loss(min(losses))} to {loss(max(losses))} in epochs {epochs[0].epoch} to "
        f"{epochs[-1].epoch}), and a step changes {layer} by {percent(update)} of its length; 0.1% is usual"
    )
    rate = job.spec.learning_rate
    advice = (
        f"Lower the learning rate from {number(rate)}, to {number(rate / 10)} to begin with, or start with a warm-up"
    )
    return [Finding(max(roughness / JUMPS, update / LARGE_UPDATE), evidence, advice)]


def learning_rate_too_low(job: Job, held: Diagnosis | None) -> Findings:
    """Updates are tiny, and the loss falls slowly though there is much of it left."""
    epochs, first, updates = job.past.epochs, job.past.first, update_ratios(job)
    if first is None or len(epochs) < FEWEST_EPOCHS or not updates or looks_of(job) is None or not _at_full_rate(job):
        return None
    if job.spec.environment or job.spec.initial_model:  # a model that is only refined is meant to stay as it is
        return None
    known = held is not None
    layer, update = max(updates.items(), key=lambda item: item[1])
    margin = 2.0 if known else 1.0
    small = update < margin * SMALL_UPDATE or update * job.total_steps < margin * FARTHEST
    fallen = 1 - ratio(epochs[-1].training_loss, first.training_loss)
    slow = fallen < (FAST_FALL if known else SLOW_FALL)
    if update == 0 or not small or not slow or _is_good(job, epochs[-1]):
        return []
    evidence = (
        f"a step changes {layer} by {percent(update)} of its length, and the other layers by less; 0.1% is usual. "
        f"The training loss went from {loss(first.training_loss)} to {loss(epochs[-1].training_loss)} "
        f"in epochs {first.epoch} to {epochs[-1].epoch}"
    )
    times = min(1e-3 / update, 1e6)
    advice = (
        f"Raise the learning rate from {number(job.spec.learning_rate)}, ten times at a time, as long as the loss "
        f"falls faster for it (updates of the usual size would be {number(times)} times as large)"
    )
    return [Finding(ratio(SMALL_UPDATE, update), evidence, advice)]


def class_imbalance(job: Job, held: Diagnosis | None) -> Findings:
    """Most rows are told right, and some classes aren't."""
    epochs = job.past.epochs[-FEWEST_EPOCHS:]
    pairs = [(epoch.validation_scores.get("f1"), epoch.validation_accuracy) for epoch in epochs]
    known = [(f1, accuracy) for f1, accuracy in pairs if f1 is not None and accuracy]
    if len(known) < FEWEST_EPOCHS:
        return None
    right = BINARY_RIGHT if isinstance(job.spec.loss, BinaryCrossEntropy) else RIGHT
    missing = [1 - f1 / accuracy if accuracy >= right else 0.0 for f1, accuracy in known]
    if not shows(missing, 1 - RARE, 1 - FREQUENT, held=held is not None):
        return []
    f1, accuracy = known[-1]
    evidence = (
        f"of the held-out rows {percent(accuracy)} are told right, but F1, in which every class counts the same, "
        f"is {f1:.2f} after epoch {epochs[-1].epoch}"
    )
    return [Finding(mean(missing), evidence, _WEIGH)]


def never_told(succeeded: Succeeded) -> Findings:
    """The classes that the finished model tells of no held-out row, though some are theirs."""
    rows = succeeded.confusion
    total = sum(map(sum, rows))
    if not total or sum(row[index] for index, row in enumerate(rows)) < RIGHT * total:
        return []
    never = [
        (sum(row), index)
        for index, row in enumerate(rows)
        if FEWEST_ROWS <= sum(row) < total / len(rows) / 2 and not any(other[index] for other in rows)
    ]
    if not never:
        return []
    count, index = max(never)
    others = f", and so are {len(never) - 1} other classes" if len(never) > 1 else ""
    evidence = f"class {index}, which {count:g} of {total:g} held-out rows have, is told of none{others}"
    return [Finding(1.0, evidence, _WEIGH)]


_SMALLER_STEPS = f"{ADVICE}; so does clipping the gradient (optimizer.clip_norm)"
_WEIGH = (
    "Let rare classes count for more (class_weights, positive_weight, or weight_column for single rows), or bring more "
    "rows of them; judge by f1 or auc, not by accuracy"
)


def _undone(job: Job, back: RolledBack) -> Finding:
    evidence = f"{_evidence(job, back.reason)}. The job went back to step {back.step}"
    advice = (
        f"It goes on with a learning rate of {number(back.learning_rate)}; if it has to go back again, begin with such "
        f"a rate, clip the gradient (optimizer.clip_norm), or scale the inputs to about unit size"
    )
    return Finding(100 * ratio(job.spec.learning_rate, back.learning_rate), evidence, advice)  # beyond any growth


def _evidence(job: Job, reason: str) -> str:
    """Why a step couldn't be applied, and how the gradient came to that."""
    reason = reason.removesuffix(ADVICE).rstrip(" .")
    looks = job.past.looks
    if len(looks) < 2 or looks[-1].gradient_norm < 10 * looks[0].gradient_norm:
        return reason
    return (
        f"{reason}. The length of the gradient grew from {number(looks[0].gradient_norm)} in step {looks[0].step} "
        f"to {number(looks[-1].gradient_norm)} in step {looks[-1].step}"
    )


def _lost(training_loss: float, first: EpochCompleted, lowest: EpochCompleted) -> float:
    """How much of what was learned is lost, 1 being the bound."""
    return min(ratio(training_loss, lowest.training_loss) / LOST, ratio(training_loss, first.training_loss))


def _flat(job: Job, held: Diagnosis | None) -> bool | None:
    """Whether the training loss has stopped falling; None if that can't be told yet, or has been meant to happen."""
    losses = [epoch.training_loss for epoch in job.past.epochs]
    if len(losses) < MOST_EPOCHS or job.spec.environment or not _at_full_rate(job):
        return None
    before, after = mean(losses[: MOST_EPOCHS // 2]), mean(losses[MOST_EPOCHS // 2 :])
    fall = (before - after) / before if before > 0 else 1.0
    return fall < (FALLING if held else FLAT) and _roughness(losses) < JUMPS


def _told_flat(job: Job) -> str:
    epochs = job.past.epochs
    return (
        f"the training loss went from {loss(epochs[0].training_loss)} to {loss(epochs[-1].training_loss)} "
        f"in the last {len(epochs)} epochs"
    )


def _level(job: Job) -> str:
    """How good the newest epoch is, in the words of the score that says it."""
    epoch = job.past.epochs[-1]
    if epoch.training_accuracy is not None:
        return f"{percent(epoch.training_accuracy)} of the training rows are told right"
    if (r2 := epoch.validation_scores.get("r2")) is not None:
        return f"R2 of the held-out rows is {r2:.2f}, of 1"
    first = job.past.first or epoch
    return f"{percent(ratio(epoch.training_loss, first.training_loss))} of the first epoch's loss is left"


def _is_poor(job: Job, epoch: EpochCompleted) -> bool:
    return not _reaches(job, epoch, POOR, POOR_R2, POOR_LOSS)


def _is_good(job: Job, epoch: EpochCompleted) -> bool:
    return _reaches(job, epoch, GOOD, GOOD, GOOD_LOSS)


def _reaches(job: Job, epoch: EpochCompleted, accuracy: float, r2: float, left: float) -> bool:
    """Whether an epoch is as good as a bound: by its accuracy, or else R2, or else what is left of the loss."""
    first = job.past.first
    if epoch.training_accuracy is not None:
        return epoch.training_accuracy >= accuracy
    if "r2" in epoch.validation_scores:
        return epoch.validation_scores["r2"] >= r2
    return first is None or epoch.training_loss <= left * first.training_loss


def _at_full_rate(job: Job) -> bool:
    return job.past.epochs[-1].learning_rate > FULL_RATE * job.spec.learning_rate


def _roughness(losses: Sequence[float]) -> float:
    """How far losses go up on the way, and down again, from one to the next in the mean: beside their median."""
    rises = [max(b - a, 0.0) for a, b in pairwise(losses)]
    return ratio(2 * mean(rises), max(median(losses), 0.0)) if rises else 0.0


def _rises(losses: Sequence[float]) -> int:
    return sum(b > a for a, b in pairwise(losses))
