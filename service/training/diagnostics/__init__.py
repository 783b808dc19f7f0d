"""What is wrong with a training: a pure function of its job's events.

It is asked before each event of a job is recorded, and what it finds is recorded with that event. All it looks at is
what events left in the job, so that the same events give the same diagnoses, however they come in batches, and also
after a restart.

A network that is ill in one way shows the signs of others: one whose units are dead has a vanishing gradient, and
reaches a plateau. So each trouble names those that explain it, and isn't told beside them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from service.jobs.events import EpochCompleted, Event, Failed, RolledBack, StateChanged, Succeeded
from service.jobs.health import Diagnosed, Diagnosis, HealthSampled, Recovered, Trouble
from service.jobs.job import Job, advance
from service.training.diagnostics import epochs, layers
from service.training.diagnostics.finding import Finding, Findings


@dataclass(frozen=True)
class Check:
    """How a trouble is found."""

    find: Callable[[Job, Diagnosis | None], Findings]
    """Where it shows; given the diagnosis, if it is known already."""
    unless: frozenset[Trouble] = frozenset()
    """What explains it."""
    worse: float = 2.0
    """By what factor it must get worse to be told again."""


_OF_LAYERS = frozenset({Trouble.DEAD_UNITS, Trouble.SATURATION})
_OF_STEPS = frozenset({Trouble.DIVERGENCE, Trouble.EXPLODING_GRADIENT, Trouble.LEARNING_RATE_TOO_HIGH})
_SMALL = _OF_LAYERS | {Trouble.VANISHING_GRADIENT}
_ALL = _SMALL | _OF_STEPS | {Trouble.LEARNING_RATE_TOO_LOW, Trouble.CLASS_IMBALANCE}

CHECKS: Mapping[Trouble, Check] = MappingProxyType(
    {
        Trouble.DIVERGENCE: Check(epochs.divergence),
        Trouble.EXPLODING_GRADIENT: Check(layers.exploding_gradient, worse=10.0),
        Trouble.DEAD_UNITS: Check(layers.dead_units),
        Trouble.SATURATION: Check(layers.saturation, frozenset({Trouble.LEARNING_RATE_TOO_HIGH})),
        Trouble.VANISHING_GRADIENT: Check(layers.vanishing_gradient, _OF_LAYERS, worse=10.0),
        Trouble.LEARNING_RATE_TOO_HIGH: Check(
            epochs.learning_rate_too_high, frozenset({Trouble.EXPLODING_GRADIENT, Trouble.DIVERGENCE})
        ),
        Trouble.LEARNING_RATE_TOO_LOW: Check(epochs.learning_rate_too_low, _SMALL | {Trouble.EXPLODING_GRADIENT}),
        Trouble.OVERFITTING: Check(epochs.overfitting, _OF_STEPS),
        Trouble.CLASS_IMBALANCE: Check(epochs.class_imbalance, _SMALL),
        Trouble.UNDERFITTING: Check(epochs.underfitting, _ALL),
        Trouble.PLATEAU: Check(epochs.plateau, _ALL | {Trouble.UNDERFITTING, Trouble.OVERFITTING}),
        Trouble.STRAGGLERS: Check(layers.stragglers),
    }
)
"""Causes come before what they explain."""


def told(job: Job, event: Event) -> tuple[Event, ...]:
    """An event that happens to `job`, together with what it shows to be wrong, or no longer wrong.

    What is found follows the event; but nothing can follow a job's end, so there it comes before. Raises IllegalEvent.
    """
    match event:
        case StateChanged(Succeeded() | Failed() as end):
            return (*_at_end(job, end), event)
        case EpochCompleted() | HealthSampled() | RolledBack():
            return (event, *_found(advance(job, event, job.created), event.step))
        case _:
            return (event,)


def _found(job: Job, step: int) -> list[Event]:
    """What is news of a job as it stands after a step."""
    news: list[Event] = []
    known = dict(job.diagnoses)
    for trouble, check in CHECKS.items():
        held = known.get(trouble)
        if held is None and not check.unless.isdisjoint(known):
            continue
        findings = check.find(job, held)
        if findings:
            worst = max(findings, key=lambda finding: finding.measure)
            if held is None or _is_news(held, worst, findings, check.worse):
                known[trouble] = _diagnosis(trouble, step, worst)
                news.append(Diagnosed(known[trouble]))
        elif held and findings is not None:
            del known[trouble]
            news.append(Recovered(trouble, step))
    return news


def _is_news(held: Diagnosis, worst: Finding, findings: list[Finding], worse: float) -> bool:
    """Whether it is much worse, or no longer shows in the layer that was named."""
    return worst.measure >= worse * held.measure or held.layer not in {finding.layer for finding in findings}


def _at_end(job: Job, end: Succeeded | Failed) -> list[Event]:
    """What the end of a job shows by itself."""
    trouble = Trouble.CLASS_IMBALANCE if isinstance(end, Succeeded) else Trouble.DIVERGENCE
    findings = epochs.never_told(end) if isinstance(end, Succeeded) else epochs.failure(job, end)
    step = max(job.epoch.step if job.epoch else 0, job.health.step if job.health else 0)
    return [Diagnosed(_diagnosis(trouble, step, finding)) for finding in findings or ()]


def _diagnosis(trouble: Trouble, step: int, finding: Finding) -> Diagnosis:
    return Diagnosis(trouble, step, finding.evidence, finding.advice, finding.layer, finding.measure)
