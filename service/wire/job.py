"""Jobs, their events and their progress, as clients see them."""

from datetime import datetime

from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from chainrule.v1 import training_event_pb2 as event_pb
from chainrule.v1 import training_job_pb2 as pb
from chainrule.v1 import training_service_pb2 as service_pb
from service.data.datasets import Dataset
from service.jobs.events import (
    CheckpointSaved,
    EpochCompleted,
    Failed,
    LearningRateChanged,
    Paused,
    Progress,
    Queued,
    RolledBack,
    SettingsChanged,
    State,
    StateChanged,
    Succeeded,
    WaitingForWorkers,
    WorkerJoined,
    WorkerLost,
)
from service.jobs.health import Diagnosed, HealthSampled, Recovered, Trouble
from service.jobs.job import Job
from service.jobs.spec import JobSpec
from service.jobs.store import Record, SpecText
from service.models.registry import Origin
from service.training.checkpoints import Saved
from service.wire.health import diagnosis_message, health_message, recovered_message
from service.wire.network import loss_message, model_json
from service.wire.settings import settings_message
from service.wire.spec import parse_spec, spec_message


def spec_text() -> SpecText:
    """Specifications as the store keeps them: the contract's message in JSON, which only ever gains fields."""
    return SpecText(
        write=lambda spec: json_format.MessageToJson(spec_message(spec), indent=None),
        read=lambda text: parse_spec(json_format.Parse(text, pb.TrainingJobSpec()), "spec"),
    )


def layers_json(spec: JobSpec) -> str:
    """A specification's network in JSON, as model files carry it."""
    return model_json(spec.layers, spec.padding, spec.traits)


def origin(spec: JobSpec, dataset: Dataset) -> Origin:
    """How a job on a dataset makes its model."""
    return Origin(
        loss_json=json_format.MessageToJson(loss_message(spec.loss), indent=None) if spec.loss else "",
        spec_json=json_format.MessageToJson(spec_message(spec), indent=None),
        dataset_sha256=dataset.sha256,
        preparation_json=dataset.preparation_json,
    )


def timestamp(time: datetime) -> Timestamp:
    """The message for a time."""
    message = Timestamp()
    message.FromDatetime(time)
    return message


def job_message(job: Job, progress: pb.TrainingProgress, waiting: str) -> pb.TrainingJob:
    """The resource. `waiting` says why a queued job waits."""
    return pb.TrainingJob(
        name=job.name,
        display_name=job.display_name,
        spec=spec_message(job.spec),
        state=pb.TrainingJob.State.Value(job.state.kind),
        state_reason=waiting or _reason(job.state),
        progress=progress,
        error=_error(job.state),
        result=_result(job.id, job.state),
        create_time=timestamp(job.created),
        start_time=timestamp(job.started) if job.started else None,
        end_time=timestamp(job.ended) if job.ended else None,
        last_event=job.last_event,
        created_by=job.created_by,
        labels=job.labels,
        etag=job.etag,
        learning_rate=job.asked.learning_rate if job.asked else None,
        diagnoses=[diagnosis_message(job.diagnoses[trouble]) for trouble in Trouble if trouble in job.diagnoses],
    )


def progress_message(job: Job, progress: Progress) -> pb.TrainingProgress:
    """How far a job got: from its live progress, or else from its events."""
    epoch = job.epoch
    step = job.steps(progress)
    message = pb.TrainingProgress(
        epoch=epoch.epoch if epoch else 0,
        step=step,
        total_steps=job.total_steps,
        samples=job.shards.samples(step),
        training_loss=progress.training_loss if progress.step else epoch.training_loss if epoch else 0.0,
        validation_loss=epoch.validation_loss if epoch else None,
        validation_accuracy=epoch.validation_accuracy if epoch else None,
        learning_rate=job.learning_rate(progress),
        worker_failures=job.worker_failures,
        best_epoch=epoch.best_epoch if epoch else 0,
        validation_scores=epoch.validation_scores if epoch else None,
    )
    if workers := job.workers(progress):
        message.samples_per_second, message.workers = progress.samples_per_second, workers
        message.shared_memory_workers = progress.shared_memory_workers
        message.phase_seconds.update(progress.phase_seconds)
    return message


def event_message(job_id: str, record: Record) -> event_pb.TrainingEvent:
    """The message for an event."""
    message = event_pb.TrainingEvent(number=record.number, time=timestamp(record.time))
    match record.event:
        case StateChanged(state):
            message.state_changed.CopyFrom(
                event_pb.StateChanged(
                    state=pb.TrainingJob.State.Value(state.kind),
                    reason=_reason(state),
                    error=_error(state),
                    result=_result(job_id, state),
                )
            )
        case EpochCompleted() as epoch:
            message.epoch_completed.CopyFrom(
                event_pb.EpochCompleted(
                    epoch=epoch.epoch,
                    step=epoch.step,
                    training_loss=epoch.training_loss,
                    training_accuracy=epoch.training_accuracy,
                    validation_loss=epoch.validation_loss,
                    validation_accuracy=epoch.validation_accuracy,
                    learning_rate=epoch.learning_rate,
                    duration_seconds=epoch.duration_seconds,
                    best_epoch=epoch.best_epoch,
                    training_scores=epoch.training_scores,
                    validation_scores=epoch.validation_scores,
                )
            )
        case CheckpointSaved(step):
            message.checkpoint_saved.CopyFrom(event_pb.CheckpointSaved(step=step))
        case WorkerLost(worker, step, reason):
            message.worker_lost.CopyFrom(event_pb.WorkerLost(worker=worker, step=step, reason=reason))
        case WorkerJoined(worker, step, exchange):
            message.worker_joined.CopyFrom(event_pb.WorkerJoined(worker=worker, step=step, exchange=exchange))
        case RolledBack(diverged, step, rate, reason):
            message.rolled_back.CopyFrom(
                event_pb.RolledBack(diverged_step=diverged, step=step, learning_rate=rate, reason=reason)
            )
        case SettingsChanged():
            message.settings_changed.CopyFrom(settings_message(record.event))
        case LearningRateChanged():
            message.learning_rate_changed.CopyFrom(rate_message(record.event))
        case HealthSampled():
            message.health_sampled.CopyFrom(health_message(record.event))
        case Diagnosed(diagnosis):
            message.diagnosed.diagnosis.CopyFrom(diagnosis_message(diagnosis))
        case Recovered():
            message.recovered.CopyFrom(recovered_message(record.event))
    return message


def checkpoint_message(job: Job, saved: Saved) -> service_pb.Checkpoint:
    """The resource for a checkpoint."""
    return service_pb.Checkpoint(
        name=f"{job.name}/checkpoints/{saved.step}",
        step=saved.step,
        epoch=saved.step // job.shards.steps_per_epoch,
        best=saved.best,
        create_time=timestamp(saved.time),
        size_bytes=saved.size_bytes,
    )


def rate_message(change: LearningRateChanged) -> pb.LearningRateChange:
    """The message for a learning rate that came to hold."""
    return pb.LearningRateChange(step=change.step, learning_rate=change.learning_rate)


def _reason(state: State) -> str:
    return state.reason if isinstance(state, Queued | WaitingForWorkers | Paused | Succeeded) else ""


def _error(state: State) -> pb.JobError | None:
    return pb.JobError(reason=state.reason, message=state.message) if isinstance(state, Failed) else None


def _result(job_id: str, state: State) -> pb.TrainingResult | None:
    if not isinstance(state, Succeeded):
        return None
    return pb.TrainingResult(
        model=f"models/{job_id}",
        parameters_sha256=state.parameters_sha256,
        training_loss=state.training_loss,
        training_accuracy=state.training_accuracy,
        validation_loss=state.validation_loss,
        validation_accuracy=state.validation_accuracy,
        duration_seconds=state.duration_seconds,
        epoch=state.epoch,
        validation_scores=state.validation_scores,
        confusion=[pb.ConfusionRow(counts=row) for row in state.confusion],
    )
