"""A job's life: states that carry their data, events, and the one function in which a job changes.

`advance` decides without doing: no clock, no disk. Replaying a job's events through it gives the job, and that is how a
coordinator that starts again knows where everything stood.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal, TypeAlias

from pydantic import TypeAdapter

from service.jobs.health import Diagnosed, Diagnosis, HealthSampled, Recovered, Trouble
from service.jobs.spec import JobSpec
from worker.shards import Shards


@dataclass(frozen=True)
class Queued:
    """Waits for room. The reason is set when the job had been running before."""

    reason: str = ""
    kind: Literal["QUEUED"] = "QUEUED"


@dataclass(frozen=True)
class Starting:
    """Its workers are being started."""

    kind: Literal["STARTING"] = "STARTING"


@dataclass(frozen=True)
class Running:
    """Steps are being taken."""

    kind: Literal["RUNNING"] = "RUNNING"


@dataclass(frozen=True)
class WaitingForWorkers:
    """Every worker is lost."""

    reason: str
    kind: Literal["WAITING_FOR_WORKERS"] = "WAITING_FOR_WORKERS"


@dataclass(frozen=True)
class Paused:
    """Holds no workers until it is resumed. The reason is set if nobody asked for it."""

    reason: str = ""
    kind: Literal["PAUSED"] = "PAUSED"


@dataclass(frozen=True)
class Succeeded:
    """The model is in the registry, under the job's own id."""

    parameters_sha256: str
    training_loss: float
    training_accuracy: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    duration_seconds: float
    epoch: int = 0
    """The epoch after which the model was as it is."""
    reason: str = ""
    """Set when the job stopped before its last epoch."""
    validation_scores: Mapping[str, float] = field(default_factory=dict)
    confusion: tuple[tuple[float, ...], ...] = ()
    """Of the classes of the held-out rows: a row for each true class."""
    kind: Literal["SUCCEEDED"] = "SUCCEEDED"


@dataclass(frozen=True)
class Failed:
    """Ended with an error: a reason for programs, a message for people."""

    reason: str
    message: str
    kind: Literal["FAILED"] = "FAILED"


@dataclass(frozen=True)
class Cancelled:
    """Ended on request."""

    kind: Literal["CANCELLED"] = "CANCELLED"


State: TypeAlias = Queued | Starting | Running | WaitingForWorkers | Paused | Succeeded | Failed | Cancelled

_NEXT: dict[type[State], tuple[type[State], ...]] = {
    # A job that was under way goes back to the queue when its coordinator stops or starts again.
    # Between being paused and letting go of its workers a job may still come to its end.
    Queued: (Starting, Paused, Succeeded, Failed, Cancelled),
    Starting: (Running, Paused, Queued, Failed, Cancelled),
    Running: (WaitingForWorkers, Paused, Queued, Succeeded, Failed, Cancelled),
    WaitingForWorkers: (Running, Paused, Queued, Failed, Cancelled),
    Paused: (Queued, Succeeded, Failed, Cancelled),
    Succeeded: (),
    Failed: (),
    Cancelled: (),
}


STATES = ("QUEUED", "STARTING", "RUNNING", "WAITING_FOR_WORKERS", "PAUSED", "SUCCEEDED", "FAILED", "CANCELLED")
"""The names of all states."""


@dataclass(frozen=True)
class StateChanged:
    """The job is in a new state."""

    state: State
    kind: Literal["state_changed"] = "state_changed"


@dataclass(frozen=True)
class EpochCompleted:
    """An epoch was completed; `epoch` counts from 1, `step` is the number of steps applied."""

    epoch: int
    step: int
    training_loss: float
    training_accuracy: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float
    duration_seconds: float
    best_epoch: int = 0
    """The best epoch so far, this one included; 0 without held-out rows."""
    training_scores: Mapping[str, float] = field(default_factory=dict)
    validation_scores: Mapping[str, float] = field(default_factory=dict)
    kind: Literal["epoch_completed"] = "epoch_completed"


@dataclass(frozen=True)
class CheckpointSaved:
    """After a crash the job goes on from this step."""

    step: int
    kind: Literal["checkpoint_saved"] = "checkpoint_saved"


@dataclass(frozen=True)
class WorkerLost:
    """A worker died or stopped answering while `step` was computed."""

    worker: int
    step: int
    reason: str
    kind: Literal["worker_lost"] = "worker_lost"


@dataclass(frozen=True)
class WorkerJoined:
    """A worker came, or came back, before `step`; `exchange` is how it gets the parameters."""

    worker: int
    step: int
    exchange: str = ""
    kind: Literal["worker_joined"] = "worker_joined"


@dataclass(frozen=True)
class RolledBack:
    """A step diverged; the job goes on from an earlier one with a smaller learning rate, before its schedule."""

    diverged_step: int
    step: int
    learning_rate: float
    reason: str
    kind: Literal["rolled_back"] = "rolled_back"


Event: TypeAlias = (
    StateChanged
    | EpochCompleted
    | CheckpointSaved
    | WorkerLost
    | WorkerJoined
    | RolledBack
    | HealthSampled
    | Diagnosed
    | Recovered
)

Reported: TypeAlias = EpochCompleted | RolledBack | HealthSampled
"""What happened to the parameters, or was seen of them, at a step that will not be taken again."""

reported_events: TypeAdapter[tuple[Reported, ...]] = TypeAdapter(tuple[Reported, ...])
"""Writes and reads the events that a checkpoint carries."""


@dataclass(frozen=True)
class Progress:
    """How far a running job is, as of its newest step. Superseded by the next, never stored."""

    step: int = 0
    training_loss: float = 0.0
    samples_per_second: float = 0.0
    workers: int = 0
    shared_memory_workers: int = 0
    learning_rate: float | None = None
    health: HealthSampled | None = None
    """The newest look at the layers, of which only some become events; None before a trainer's first."""
    phase_seconds: Mapping[str, float] = field(default_factory=dict)
    """The mean seconds of a step lately, by phase."""


MOST_LOOKS, MOST_EPOCHS = 5, 10
"""How many of the newest looks and epochs a job remembers, to be judged by."""


@dataclass(frozen=True)
class Past:
    """What a job's diagnoses follow from: never more of its events than this, however long it trains."""

    looks: tuple[HealthSampled, ...] = ()
    epochs: tuple[EpochCompleted, ...] = ()
    first: EpochCompleted | None = None
    lowest: EpochCompleted | None = None
    """The epoch with the lowest training loss."""
    best: EpochCompleted | None = None
    """The one with the lowest validation loss."""

    def after(self, event: Event) -> "Past":
        """What is remembered once an event has happened."""
        match event:
            case HealthSampled():
                return replace(self, looks=(*self.looks, event)[-MOST_LOOKS:])
            case EpochCompleted():
                return Past(
                    self.looks,
                    (*self.epochs, event)[-MOST_EPOCHS:],
                    self.first or event,
                    event if self.lowest is None or event.training_loss < self.lowest.training_loss else self.lowest,
                    self._best(event),
                )
            case RolledBack(step=step):  # what was seen after that step is undone
                return replace(self, looks=tuple(look for look in self.looks if look.step <= step))
            case _:
                return self

    def _best(self, epoch: EpochCompleted) -> EpochCompleted | None:
        best = self.best.validation_loss if self.best else None
        loss = epoch.validation_loss
        return epoch if loss is not None and (best is None or loss < best) else self.best


@dataclass(frozen=True)
class Job:
    """A job as its events left it."""

    id: str
    display_name: str
    spec: JobSpec
    rows: int
    """How many rows its dataset has; datasets never change."""
    created: datetime
    state: State = Queued()
    since: datetime | None = None
    """When it came into that state."""
    last_event: int = 0
    story: tuple[str, ...] = ()
    started: datetime | None = None
    ended: datetime | None = None
    epoch: EpochCompleted | None = None
    checkpoint_step: int = 0
    worker_failures: int = 0
    rollbacks: int = 0
    rolled_back: RolledBack | None = None
    """The newest of them."""
    health: HealthSampled | None = None
    """The newest look at its layers."""
    diagnoses: Mapping[Trouble, Diagnosis] = field(default_factory=dict)
    """What is wrong with it at present."""
    past: Past = Past()
    """Empty once it has ended."""
    created_by: str = ""
    """The principal that created it; "" where nobody is asked."""

    @property
    def name(self) -> str:
        """The resource name."""
        return f"jobs/{self.id}"

    @property
    def shards(self) -> Shards:
        """How its rows are dealt out."""
        spec = self.spec
        return spec.shards_of(self.rows)

    def steps(self, progress: Progress) -> int:
        """How many steps were applied: what is known live, or else from the events."""
        return max(progress.step, self.epoch.step if self.epoch else 0, self.checkpoint_step)

    def workers(self, progress: Progress) -> int:
        """How many workers take part in its steps now."""
        return progress.workers if isinstance(self.state, Running) else 0

    def learning_rate(self, progress: Progress) -> float:
        """That of the newest step: what is known live, or else from the events."""
        epoch, rolled_back = self.epoch, self.rolled_back
        if progress.learning_rate is not None:
            return progress.learning_rate
        if rolled_back and (epoch is None or epoch.step <= rolled_back.step):
            return rolled_back.learning_rate
        return epoch.learning_rate if epoch else self.spec.learning_rate

    @property
    def total_steps(self) -> int:
        """How many steps it takes in all; once it succeeded, how many it took."""
        if isinstance(self.state, Succeeded) and self.epoch:
            return self.epoch.step  # fewer, if it stopped early
        return self.shards.steps_per_epoch * self.spec.epochs

    @property
    def has_ended(self) -> bool:
        """Whether nothing more can happen to it."""
        return not _NEXT[type(self.state)]

    @property
    def is_at_work(self) -> bool:
        """Whether it holds workers, or holds out for some."""
        return isinstance(self.state, Starting | Running | WaitingForWorkers)


class IllegalEvent(Exception):
    """An event that cannot follow what happened to the job before."""


def advance(job: Job, event: Event, time: datetime) -> Job:
    """The job after an event. Raises IllegalEvent, with the job, its state and its story, if it can't happen now."""
    if job.has_ended or (isinstance(event, StateChanged) and not _may_follow(job, event.state)):
        raise IllegalEvent(f"{job.name} is {job.state.kind} after {' -> '.join(job.story)}; it can't take {event}")
    job = replace(job, last_event=job.last_event + 1, past=job.past.after(event))
    match event:
        case StateChanged(state):
            job = replace(job, state=state, since=time, story=(*job.story[-19:], state.kind))
            if isinstance(state, Running) and job.started is None:
                job = replace(job, started=time)
            return replace(job, ended=time, past=Past()) if job.has_ended else job
        case EpochCompleted():
            return replace(job, epoch=event)
        case CheckpointSaved(step):
            return replace(job, checkpoint_step=step)
        case WorkerLost():
            return replace(job, worker_failures=job.worker_failures + 1)
        case WorkerJoined():
            return job
        case RolledBack():
            return replace(job, rollbacks=job.rollbacks + 1, rolled_back=event)
        case HealthSampled():
            return replace(job, health=event)
        case Diagnosed(diagnosis):
            return replace(job, diagnoses={**job.diagnoses, diagnosis.trouble: diagnosis})
        case Recovered(trouble):
            return replace(job, diagnoses={key: value for key, value in job.diagnoses.items() if key != trouble})


def is_no_news(job: Job, event: Event) -> bool:
    """Whether what a trainer tells of a job is known already, or no longer true.

    Steps after the last checkpoint are taken again when a trainer begins anew. They give the same bits, so their events
    are known. And a job that was paused, or resumed after that, stays so, whatever its old trainer is still up to.
    """
    match event:
        case StateChanged(Running() | WaitingForWorkers() | Queued()):
            return isinstance(job.state, Paused | Queued) and job.last_event > 0
        case StateChanged(Starting() | Paused()):
            return isinstance(job.state, Paused)
        case EpochCompleted(epoch):
            return job.epoch is not None and epoch <= job.epoch.epoch
        case CheckpointSaved(step):
            return step <= job.checkpoint_step
        case RolledBack():
            return job.rolled_back is not None and event.learning_rate >= job.rolled_back.learning_rate
        case HealthSampled(step):
            return job.health is not None and step <= job.health.step
        case _:
            return False


def _may_follow(job: Job, state: State) -> bool:
    """The first event of every job puts it in the queue."""
    if job.last_event == 0:
        return isinstance(state, Queued)
    return type(state) in _NEXT[type(job.state)]
