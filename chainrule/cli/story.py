"""What is known of a job while it is followed: the job as it was, and everything that the watch has told since."""

from chainrule.v1.training_event_pb2 import EpochCompleted, StateChanged, TrainingEvent
from chainrule.v1.training_job_pb2 import TrainingJob, TrainingProgress


def take(job: TrainingJob, update: TrainingEvent | TrainingProgress) -> None:
    """Brings `job` up to date with an event or a snapshot of its progress."""
    if isinstance(update, TrainingProgress):
        job.progress.CopyFrom(update)
        return
    job.last_event = update.number
    match update.WhichOneof("kind"):
        case "state_changed":
            _take_state(job, update.state_changed)
        case "epoch_completed":
            _take_epoch(job.progress, update.epoch_completed)
        case "rolled_back":
            job.progress.step = update.rolled_back.step
            job.progress.learning_rate = update.rolled_back.learning_rate
        case _:
            pass


def seconds_left(progress: TrainingProgress) -> float | None:
    """How long the rest of the steps will take at the present speed; None if there is nothing to go by."""
    if not progress.step or progress.samples_per_second <= 0:
        return None
    samples_in_a_step = progress.samples / progress.step
    return max(0, progress.total_steps - progress.step) * samples_in_a_step / progress.samples_per_second


def _take_state(job: TrainingJob, change: StateChanged) -> None:
    job.state, job.state_reason = change.state, change.reason
    if change.HasField("error"):
        job.error.CopyFrom(change.error)
    if change.HasField("result"):
        job.result.CopyFrom(change.result)
        if change.reason:  # it stopped early
            job.progress.total_steps = job.progress.step


def _take_epoch(progress: TrainingProgress, epoch: EpochCompleted) -> None:
    progress.epoch = epoch.epoch
    progress.step = max(progress.step, epoch.step)
    progress.training_loss = epoch.training_loss
    progress.learning_rate = epoch.learning_rate
    if epoch.HasField("validation_loss"):
        progress.validation_loss = epoch.validation_loss
    if epoch.HasField("validation_accuracy"):
        progress.validation_accuracy = epoch.validation_accuracy
    progress.validation_scores.clear()
    progress.validation_scores.update(epoch.validation_scores)
