"""Jobs to whom much happened, for the tests of what tells of it."""

import math
from typing import Any

from chainrule.cli.report import History
from chainrule.v1.dataset_service_pb2 import Dataset
from chainrule.v1.model_service_pb2 import Model
from chainrule.v1.training_event_pb2 import (
    CheckpointSaved,
    EpochCompleted,
    RolledBack,
    StateChanged,
    TrainingEvent,
    WorkerJoined,
    WorkerLost,
)
from chainrule.v1.training_health_pb2 import Diagnosed, Diagnosis, HealthSampled, LayerHealth, Recovered
from chainrule.v1.training_job_pb2 import ConfusionRow, JobError, TrainingJob, TrainingResult

HOSTILE = """<script>alert("1")</script> & ' ]]> <!-- </title></style>"""
STEPS = 20
"""In an epoch."""

VANISHING = Diagnosis(
    trouble=Diagnosis.VANISHING_GRADIENT,
    step=60,
    layer="layers.0",
    evidence="the gradient of layers.0 (1.2e-6) is 1/40,000 of that of layers.8 (0.05)",
    advice="Use relu with he initialization",
)
OVERFITTING = Diagnosis(
    trouble=Diagnosis.OVERFITTING, step=100, evidence="the validation loss rose", advice="Stop early"
)


def events_of(*kinds: Any, start: int = 1) -> list[TrainingEvent]:
    """Events of these kinds, numbered and a second apart."""
    made = []
    for number, kind in enumerate(kinds, start=start):
        field = next(f for f in TrainingEvent.DESCRIPTOR.oneofs_by_name["kind"].fields if _is(f, kind))
        event = TrainingEvent(number=number)
        event.time.FromSeconds(1_790_000_000 + number)
        getattr(event, field.name).CopyFrom(kind)
        made.append(event)
    return made


def _is(field: Any, kind: Any) -> bool:
    return bool(field.message_type.full_name == kind.DESCRIPTOR.full_name)


def epoch(number: int, **changes: Any) -> EpochCompleted:
    """An epoch like those of many jobs."""
    loss = math.exp(-number / 4)
    made = EpochCompleted(
        epoch=number,
        step=number * STEPS,
        training_loss=loss,
        validation_loss=loss + 0.05,
        validation_accuracy=1 - loss,
        learning_rate=0.01,
        duration_seconds=0.25,
        training_scores={"accuracy": 1 - loss / 2},
        validation_scores={"accuracy": 1 - loss, "f1": 1 - loss * 1.05, "rmse": 3 * loss},
    )
    made.MergeFrom(EpochCompleted(**changes))
    return made


def look(step: int, layers: int = 3) -> HealthSampled:
    """A look at layers of which every second one is a relu."""
    found = [
        LayerHealth(
            layer=f"layers.{index}",
            kind="dense",
            gradient_norm=10.0 ** (index - 6) * (1 + step % 3),
            parameter_norm=4.0,
            update_ratio=0.00125,
            output_mean=0.5,
            output_deviation=1.5,
        )
        if index % 2 == 0
        else LayerHealth(
            layer=f"layers.{index}",
            kind="relu",
            dead_ratio=0.25 if step > 1 else 0.75,
            output_mean=1,
            output_deviation=2,
        )
        for index in range(layers)
    ]
    return HealthSampled(step=step, gradient_norm=0.375, layers=found, straggler_ratio=1.25)


def job(**changes: Any) -> TrainingJob:
    """A job that succeeded, by default."""
    made = TrainingJob(name="jobs/j1", display_name=HOSTILE, state=TrainingJob.SUCCEEDED)
    made.spec.data.dataset, made.spec.epochs, made.spec.seed = "datasets/digits", 8, 7
    made.start_time.FromSeconds(1_790_000_002)
    made.end_time.FromSeconds(1_790_000_044)
    made.progress.epoch, made.progress.step, made.progress.total_steps = 8, 160, 160
    made.progress.training_loss = 0.125
    made.MergeFrom(TrainingJob(**changes))
    return made


def result() -> TrainingResult:
    """What `eventful` made."""
    return TrainingResult(
        model="models/j1",
        parameters_sha256="ab" * 32,
        training_loss=0.125,
        duration_seconds=41.5,
        validation_scores={"f1": 0.8642},
        confusion=[ConfusionRow(counts=[31, 2]), ConfusionRow(counts=[0, 47.5])],
    )


def eventful() -> History:
    """A job with an event of every kind, some twice, and names that would like to be markup."""
    worse = Diagnosis()
    worse.CopyFrom(VANISHING)
    worse.step, worse.layer, worse.evidence = 80, "layers.2", HOSTILE
    kinds = [
        StateChanged(state=TrainingJob.QUEUED, reason="class 3 has no row"),
        StateChanged(state=TrainingJob.RUNNING),
        look(1),
        epoch(1),
        CheckpointSaved(step=20),
        look(25),
        WorkerLost(worker=1, step=30, reason="its process ended"),
        WorkerJoined(worker=1, step=33, exchange="shared_memory"),
        epoch(2),
        RolledBack(diverged_step=51, step=40, learning_rate=0.005, reason="the loss is NaN"),
        epoch(3),
        Diagnosed(diagnosis=VANISHING),
        epoch(4),
        Diagnosed(diagnosis=worse),
        epoch(5),
        Diagnosed(diagnosis=OVERFITTING),
        Recovered(trouble=Diagnosis.VANISHING_GRADIENT, step=105),
        look(110),
        *(epoch(number) for number in (6, 7, 8)),
        StateChanged(state=TrainingJob.SUCCEEDED, result=result()),
    ]
    dataset = Dataset(name="datasets/digits", rows=1797, sha256="cd" * 32)
    model = Model(name="models/j1", parameter_count=4810, size_bytes=20_000, sha256="ef" * 32)
    return History(job(result=result(), diagnoses=[OVERFITTING]), events_of(*kinds), dataset, model)


def failed() -> History:
    """A job that diverged in its first epoch."""
    error = JobError(reason="TRAINING_DIVERGED", message="the loss is infinite at step 3")
    kinds = [StateChanged(state=TrainingJob.RUNNING), StateChanged(state=TrainingJob.FAILED, error=error)]
    return History(job(state=TrainingJob.FAILED, error=error), events_of(*kinds))
