"""How the learning rate changes as a job goes on.

A schedule is a pure function of the step's number, so that a job that was stopped needs to remember nothing of it. The
one that can't be, since it follows the validation loss, keeps what it knows in the training state.

Each gives the factor, 0 to 1, that the job's learning rate is multiplied by: that rate is the highest there is.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from service.training.optimizers.ranges import (
    LARGEST,
    require_count,
    require_positive,
    require_share,
    require_zero_or_positive,
)
from worker.errors import InvalidValue

MOST_MILESTONES = 1_000


@dataclass(frozen=True)
class Course:
    """What of a job a schedule depends on."""

    steps_per_epoch: int
    total_steps: int
    warm_up_steps: int = 0


class Curve(Protocol):
    """The shape of a schedule after its warm-up. Implementations are frozen dataclasses of hyper-parameters."""

    def at(self, step: int, course: Course) -> float:
        """The factor for step number `step`, counted from 0 and before `total_steps`."""


@dataclass(frozen=True)
class ConstantRate:
    """1."""

    def at(self, step: int, course: Course) -> float:  # noqa: ARG002
        return 1.0


@dataclass(frozen=True)
class StepDecay:
    """factor^n, n being how often `every` epochs have passed, or how many of the milestones."""

    every: int | None = None
    milestones: tuple[int, ...] = ()
    """Numbers of epochs that are complete, ascending."""
    factor: float = 0.1

    def __post_init__(self) -> None:
        if (self.every is None) == (not self.milestones):
            raise InvalidValue("every", "must be set, or milestones, and not both")
        if self.every is not None:
            require_count("every", self.every)
        if len(self.milestones) > MOST_MILESTONES:
            raise InvalidValue("milestones", f"has {len(self.milestones):,}; must have at most {MOST_MILESTONES:,}")
        if self.milestones and (self.milestones[0] < 1 or sorted(set(self.milestones)) != list(self.milestones)):
            raise InvalidValue("milestones", "must ascend from 1 or more, each above the one before")
        _require_factor(self.factor)

    def at(self, step: int, course: Course) -> float:
        epoch = step // course.steps_per_epoch
        passed = epoch // self.every if self.every else bisect_right(self.milestones, epoch)
        return float(self.factor**passed)


@dataclass(frozen=True)
class ExponentialDecay:
    """factor^(epochs), with parts of epochs: a little less at every step."""

    factor: float = 0.95

    def __post_init__(self) -> None:
        _require_factor(self.factor)

    def at(self, step: int, course: Course) -> float:
        return float(self.factor ** (step / course.steps_per_epoch))


@dataclass(frozen=True)
class CosineDecay:
    """floor + (1 - floor) (1 + cos(pi t)) / 2 (Loshchilov and Hutter 2017, eq. 5, without restarts).

    t goes from 0 at the end of the warm-up to 1 at the end of the job.
    """

    floor: float = 0.0

    def __post_init__(self) -> None:
        require_share("floor", self.floor)

    def at(self, step: int, course: Course) -> float:
        begin = min(course.warm_up_steps, course.total_steps - 1)
        return _between(1.0, self.floor, (step - begin) / (course.total_steps - begin))


@dataclass(frozen=True)
class OneCycle:
    """Up from `start` to 1 over the first part of the steps, `rising`, and down to `end` at the last one.

    The policy of Smith (2018, "A disciplined approach to neural network hyper-parameters"), with cosines in the place
    of its lines, as in fast.ai and PyTorch. The momentum stays as it is.
    """

    rising: float = 0.3
    start: float = 0.04
    end: float = 4e-6

    def __post_init__(self) -> None:
        for field, value in (("rising", self.rising), ("start", self.start), ("end", self.end)):
            require_share(field, value)

    def at(self, step: int, course: Course) -> float:
        last = course.total_steps - 1
        peak = max(self.rising * course.total_steps - 1, 0.0)
        if step < peak:
            return _between(self.start, 1.0, step / peak)
        return _between(1.0, self.end, (step - peak) / (last - peak)) if step > peak else 1.0


@dataclass(frozen=True)
class ReduceOnPlateau:
    """Multiplies after every `patience` epochs in a row without a new least validation loss, down to a floor."""

    factor: float = 0.1
    patience: int = 10
    min_delta: float = 0.0
    """By how much a loss must be less than the least one to count as new."""
    floor: float = 0.0

    def __post_init__(self) -> None:
        _require_factor(self.factor)
        require_count("patience", self.patience)
        require_zero_or_positive("min_delta", self.min_delta)
        require_share("floor", self.floor)

    def at(self, step: int, course: Course) -> float:  # noqa: ARG002 - it is in the training state
        return 1.0


CURVES: Mapping[str, type[Curve]] = MappingProxyType(
    {
        "constant": ConstantRate,
        "step": StepDecay,
        "exponential": ExponentialDecay,
        "cosine": CosineDecay,
        "one_cycle": OneCycle,
        "reduce_on_plateau": ReduceOnPlateau,
    }
)


@dataclass(frozen=True)
class WarmUp:
    """Up from `start` to 1 in a straight line: start + (1 - start) (step + 1) / n (Goyal et al. 2017, section 2.2)."""

    steps: int | None = None
    epochs: float | None = None
    start: float = 0.0

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise InvalidValue("steps", "must be set, or epochs, and not both")
        if self.steps is not None:
            require_count("steps", self.steps, 1_000_000_000)
        if self.epochs is not None:
            require_positive("epochs", self.epochs)
        require_share("start", self.start)

    def length(self, steps_per_epoch: int) -> int:
        """How many steps it takes."""
        if self.epochs is None:
            return self.steps or 0
        return max(1, round(min(self.epochs * steps_per_epoch, LARGEST)))

    def at(self, step: int, length: int) -> float:
        """The factor for a step."""
        return self.start + (1 - self.start) * (step + 1) / length if step < length else 1.0


@dataclass(frozen=True)
class Schedule:
    """A curve, times a warm-up. Epochs are counted from the start of the job, also by the curve."""

    curve: Curve = ConstantRate()
    warm_up: WarmUp | None = None

    def __post_init__(self) -> None:
        if self.warm_up and isinstance(self.curve, OneCycle):
            raise InvalidValue("warm_up", "can't be set with one_cycle, which begins with a warm-up of its own")

    @property
    def plateau(self) -> ReduceOnPlateau | None:
        """The curve, if it follows the validation loss."""
        return self.curve if isinstance(self.curve, ReduceOnPlateau) else None

    def at(self, step: int, steps_per_epoch: int, total_steps: int) -> float:
        """What the learning rate of step number `step`, counted from 0, is multiplied by."""
        if self.warm_up is None:
            return self.curve.at(step, Course(steps_per_epoch, total_steps))
        length = self.warm_up.length(steps_per_epoch)
        course = Course(steps_per_epoch, total_steps, length)
        return self.warm_up.at(step, length) * self.curve.at(step, course)


def _between(begin: float, end: float, part: float) -> float:
    """From `begin` to `end` along half a cosine."""
    return end + (begin - end) * (1 + math.cos(math.pi * min(max(part, 0.0), 1.0))) / 2


def _require_factor(value: float) -> None:
    if not 0 < value <= 1:
        raise InvalidValue("factor", f"is {value:g}; must be above 0, up to 1")
