"""What is known of a job while it is followed: the job as it was, and everything that the watch has told since."""

import math
from dataclasses import dataclass, field

from chainrule.v1.training_event_pb2 import EpochCompleted, RolledBack, SettingsChanged, StateChanged, TrainingEvent
from chainrule.v1.training_health_pb2 import Diagnosed, HealthSampled, Recovered
from chainrule.v1.training_job_pb2 import TrainingJob, TrainingProgress


class Curve:
    """A value over steps, in at most MOST points: before there are more, neighbours become their mean."""

    MOST = 512

    def __init__(self) -> None:
        self._points: list[tuple[float, float]] = []
        self._every = 1
        self._sum, self._count = 0.0, 0

    def add(self, step: float, value: float) -> None:
        """The value after a step. What was known from that step on is forgotten: it was taken again."""
        if not math.isfinite(value):
            return
        while self._points and self._points[-1][0] >= step:
            self._points.pop()
        self._sum, self._count = self._sum + value, self._count + 1
        if self._count < self._every and self._points:
            return
        self._points.append((step, self._sum / self._count))
        self._sum, self._count = 0.0, 0
        if len(self._points) == self.MOST:
            pairs = zip(self._points[::2], self._points[1::2], strict=True)
            self._points = [(after, (first + second) / 2) for (_, first), (after, second) in pairs]
            self._every *= 2

    @property
    def points(self) -> list[tuple[float, float]]:
        """(step, value), in the order of the steps."""
        return list(self._points)


@dataclass
class Story:
    """A job, and what became of it so far. `take` brings it up to date."""

    job: TrainingJob
    training: Curve = field(default_factory=Curve)
    """The loss: of the steps that were seen, and of epochs of which no step was."""
    validation: Curve = field(default_factory=Curve)
    look: HealthSampled | None = None
    """The newest look at its layers."""
    _steps_seen: bool = False

    def take(self, update: TrainingEvent | TrainingProgress) -> None:
        """Takes in an event or a snapshot of the job's progress."""
        if isinstance(update, TrainingProgress):
            self.job.progress.CopyFrom(update)
            if update.step and update.workers:
                self._steps_seen = True
                self.training.add(update.step, update.training_loss)
            return
        self.job.last_event = update.number
        match update.WhichOneof("kind"):
            case "state_changed":
                self._take_state(update.state_changed)
            case "epoch_completed":
                self._take_epoch(update.epoch_completed)
            case "rolled_back":
                self._take_rollback(update.rolled_back)
            case "settings_changed":
                self._take_settings(update.settings_changed)
            case "health_sampled":
                self.look = update.health_sampled
            case "diagnosed":
                self._take_diagnosis(update.diagnosed)
            case "recovered":
                self._take_recovery(update.recovered)
            case _:
                pass

    def copy(self) -> "Story":
        """The same with a job of its own, for whoever looks at it while this one goes on."""
        job = TrainingJob()
        job.CopyFrom(self.job)
        return Story(job, self.training, self.validation, self.look)

    def _take_state(self, change: StateChanged) -> None:
        job = self.job
        job.state, job.state_reason = change.state, change.reason
        if change.HasField("error"):
            job.error.CopyFrom(change.error)
        if change.HasField("result"):
            job.result.CopyFrom(change.result)
            if change.reason:  # it stopped early
                job.progress.total_steps = job.progress.step

    def _take_settings(self, change: SettingsChanged) -> None:
        if "labels" in change.update_mask.paths:
            self.job.labels.clear()
        change.update_mask.MergeMessage(change.training_job, self.job)

    def _take_epoch(self, epoch: EpochCompleted) -> None:
        progress = self.job.progress
        progress.epoch = epoch.epoch
        progress.step = max(progress.step, epoch.step)
        progress.training_loss = epoch.training_loss
        progress.learning_rate = epoch.learning_rate
        if not self._steps_seen:
            self.training.add(epoch.step, epoch.training_loss)
        self._steps_seen = False
        if epoch.HasField("validation_loss"):
            progress.validation_loss = epoch.validation_loss
            self.validation.add(epoch.step, epoch.validation_loss)
        if epoch.HasField("validation_accuracy"):
            progress.validation_accuracy = epoch.validation_accuracy
        progress.validation_scores.clear()
        progress.validation_scores.update(epoch.validation_scores)

    def _take_rollback(self, back: RolledBack) -> None:
        self.job.progress.step = back.step
        self.job.progress.learning_rate = back.learning_rate

    def _take_diagnosis(self, diagnosed: Diagnosed) -> None:
        for known in self.job.diagnoses:
            if known.trouble == diagnosed.diagnosis.trouble:
                known.CopyFrom(diagnosed.diagnosis)
                return
        self.job.diagnoses.append(diagnosed.diagnosis)

    def _take_recovery(self, recovered: Recovered) -> None:
        left = [known for known in self.job.diagnoses if known.trouble != recovered.trouble]
        del self.job.diagnoses[:]
        self.job.diagnoses.extend(left)


def seconds_left(progress: TrainingProgress) -> float | None:
    """How long the rest of the steps will take at the present speed; None if there is nothing to go by."""
    if not progress.step or progress.samples_per_second <= 0:
        return None
    samples_in_a_step = progress.samples / progress.step
    return max(0, progress.total_steps - progress.step) * samples_in_a_step / progress.samples_per_second
