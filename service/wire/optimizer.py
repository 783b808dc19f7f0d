"""Optimizers, with all that acts on the gradient and on the learning rate."""

from dataclasses import fields
from typing import Any, NamedTuple

from chainrule.v1 import optimizer_pb2, training_job_pb2
from service.errors import Violations
from service.jobs.spec import JobSpec
from service.training.optimizers import OPTIMIZERS, Adam, AdamW, Optimizer
from service.training.optimizers.ranges import SINGLE, is_positive_single
from service.training.regularization import Regularization
from service.training.schedules import CURVES, ConstantRate, Curve, Schedule, WarmUp
from service.training.stopping import EarlyStopping
from service.wire.fields import fill, fill_kind, parse, parse_kind
from worker.errors import InvalidValue

MOST_ACCUMULATED = 1_000_000


class Optimization(NamedTuple):
    """What a message Optimizer says, by the names that it has in a specification."""

    optimizer: Optimizer
    learning_rate: float
    regularization: Regularization
    schedule: Schedule
    accumulate: int


def parse_optimization(message: training_job_pb2.Optimizer, path: str, violations: Violations) -> Optimization:
    """All of it, with the default in the place of what is wrong, which is noted."""
    rule: Optimizer | None = Adam()
    if message.WhichOneof("kind") is not None:
        rule = parse_kind(message, OPTIMIZERS, path, violations)
    optimizer = rule or Adam()
    rate = message.learning_rate if message.HasField("learning_rate") else optimizer.default_learning_rate
    if not is_positive_single(rate):
        violations.add(f"{path}.learning_rate", f"is {rate:g}; must be above 0, and {SINGLE}")
    regularization = parse(message, Regularization, path, violations) or Regularization()
    if isinstance(optimizer, AdamW):
        if regularization.weight_decay:
            violations.add(f"{path}.weight_decay", "can't be set with adamw, which has a weight_decay of its own")
        _check_decay(rate, optimizer.weight_decay, f"{path}.adamw.weight_decay", violations)
    _check_decay(rate, regularization.weight_decay, f"{path}.weight_decay", violations)
    accumulate = message.accumulate if message.HasField("accumulate") else 1
    if not 1 <= accumulate <= MOST_ACCUMULATED:
        violations.add(f"{path}.accumulate", f"is {accumulate}; must be 1 to {MOST_ACCUMULATED:,}")
    schedule = _parse_schedule(message.schedule, f"{path}.schedule", violations)
    return Optimization(optimizer, rate, regularization, schedule, accumulate)


def optimizer_message(spec: JobSpec) -> training_job_pb2.Optimizer:
    """The message for what a specification says of it."""
    message = training_job_pb2.Optimizer(learning_rate=spec.learning_rate, accumulate=spec.accumulate)
    fill_kind(message, spec.optimizer, OPTIMIZERS)
    for field in fields(spec.regularization):
        if value := getattr(spec.regularization, field.name):
            setattr(message, field.name, value)
    if spec.schedule != Schedule():
        fill_kind(message.schedule, spec.schedule.curve, CURVES)
        if spec.schedule.warm_up:
            fill(message.schedule.warm_up, spec.schedule.warm_up)
    return message


def parse_early_stopping(message: Any, path: str, violations: Violations) -> EarlyStopping | None:
    """When to stop early, as the message says that has it among its fields."""
    if not message.HasField("early_stopping"):
        return None
    return parse(message.early_stopping, EarlyStopping, f"{path}.early_stopping", violations)


def early_stopping_message(early: EarlyStopping | None) -> optimizer_pb2.EarlyStopping | None:
    """The message for when to stop early."""
    if early is None:
        return None
    message = optimizer_pb2.EarlyStopping()
    fill(message, early)
    return message


def _parse_schedule(message: optimizer_pb2.Schedule, path: str, violations: Violations) -> Schedule:
    curve: Curve | None = ConstantRate()
    if message.WhichOneof("kind") is not None:
        curve = parse_kind(message, CURVES, path, violations)
    warm_up = None
    if message.HasField("warm_up"):
        warm_up = parse(message.warm_up, WarmUp, f"{path}.warm_up", violations)
    try:
        return Schedule(curve or ConstantRate(), warm_up)
    except InvalidValue as error:
        violations.add(f"{path}.{error.field}", error.problem)
        return Schedule()


def _check_decay(rate: float, decay: float, field: str, violations: Violations) -> None:
    if rate * decay > 1:
        violations.add(
            field,
            f"is {decay:g}, which at a learning rate of {rate:g} turns weights beyond 0; must be at most {1 / rate:g}",
        )
