"""The states of a job, which carry their data, and the events that its life is made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from pydantic import TypeAdapter

from service.jobs.health import Diagnosed, HealthSampled, Recovered


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
    scale: float = 0.0
    """What the learning rate is multiplied by from now on, always less than before; 0 where that was not told."""
    kind: Literal["rolled_back"] = "rolled_back"


@dataclass(frozen=True)
class SettingsChanged:
    """The settings that are not None were changed on request."""

    display_name: str | None = None
    labels: Mapping[str, str] | None = None
    priority: int | None = None
    workers: int | None = None
    min_workers: int | None = None
    max_workers: int | None = None
    learning_rate: float | None = None
    """Asked for; LearningRateChanged follows once it holds."""
    changed_by: str = ""
    kind: Literal["settings_changed"] = "settings_changed"


@dataclass(frozen=True)
class RateAsked:
    """A learning rate, before its schedule, that was asked for."""

    number: int
    """Of the event that told so: of two, the later one counts."""
    learning_rate: float


@dataclass(frozen=True)
class LearningRateChanged:
    """A learning rate that was asked for holds from the step on that follows `step` applied ones."""

    step: int
    learning_rate: float
    asked: int
    """The number of the event by which it was asked for."""
    kind: Literal["learning_rate_changed"] = "learning_rate_changed"


Event: TypeAlias = (
    StateChanged
    | EpochCompleted
    | CheckpointSaved
    | WorkerLost
    | WorkerJoined
    | RolledBack
    | SettingsChanged
    | LearningRateChanged
    | HealthSampled
    | Diagnosed
    | Recovered
)

Reported: TypeAlias = EpochCompleted | RolledBack | LearningRateChanged | HealthSampled
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
