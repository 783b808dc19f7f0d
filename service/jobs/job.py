"""A job as its events left it, and the one function in which a job changes.

`advance` decides without doing: no clock, no disk. Replaying a job's events through it gives the job, and that is how a
coordinator that starts again knows where everything stood.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from service.jobs.events import (
    Cancelled,
    CheckpointSaved,
    EpochCompleted,
    Event,
    Failed,
    LearningRateChanged,
    Paused,
    Progress,
    Queued,
    RateAsked,
    RolledBack,
    Running,
    SettingsChanged,
    Starting,
    State,
    StateChanged,
    Succeeded,
    WaitingForWorkers,
    WorkerJoined,
    WorkerLost,
)
from service.jobs.health import Diagnosed, Diagnosis, HealthSampled, Recovered, Trouble
from service.jobs.past import Past
from service.jobs.spec import JobSpec
from worker.shards import Shards

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


@dataclass(frozen=True)
class Job:
    """A job as its events left it."""

    id: str
    display_name: str
    spec: JobSpec
    rows: int
    """How many rows its dataset has; datasets never change."""
    created: datetime
    state: State = field(default_factory=Queued)
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
    past: Past = field(default_factory=Past)
    """Empty once it has ended."""
    created_by: str = ""
    """The principal that created it; "" where nobody is asked."""
    labels: Mapping[str, str] = field(default_factory=dict)
    revision: int = 0
    """The number of the newest event that changed its state or its settings."""
    updates: int = 0
    """How often its settings were changed."""
    asked: RateAsked | None = None
    """The learning rate that was asked for last, if any was, in place of the specification's."""
    rates: tuple[LearningRateChanged, ...] = ()
    """The learning rates that came to hold, in the order in which they were asked for."""

    @property
    def name(self) -> str:
        """The resource name."""
        return f"jobs/{self.id}"

    @property
    def etag(self) -> str:
        """Another one whenever its state or its settings are."""
        return f"r{self.revision}"

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
        if self.rates and (epoch is None or epoch.step <= self.rates[-1].step):
            return self.rates[-1].learning_rate
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
    if not _may_happen(job, event):
        raise IllegalEvent(f"{job.name} is {job.state.kind} after {' -> '.join(job.story)}; it can't take {event}")
    job = replace(job, last_event=job.last_event + 1, past=job.past.after(event))
    match event:
        case StateChanged(state):
            story = (*job.story[-19:], state.kind)
            job = replace(job, state=state, since=time, story=story, revision=job.last_event)
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
        case SettingsChanged():
            return _changed(job, event)
        case LearningRateChanged():
            return replace(job, rates=(*job.rates, event))
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
            before = job.rolled_back
            if before is None or not before.scale:
                return before is not None and event.learning_rate >= before.learning_rate
            return event.scale >= before.scale
        case LearningRateChanged():
            return bool(job.rates) and event.asked <= job.rates[-1].asked
        case HealthSampled(step):
            return job.health is not None and step <= job.health.step
        case _:
            return False


def _changed(job: Job, event: SettingsChanged) -> Job:
    """The job with other settings."""
    asked = job.asked if event.learning_rate is None else RateAsked(job.last_event, event.learning_rate)
    given = {name: getattr(event, name) for name in ("priority", "workers", "min_workers", "max_workers")}
    return replace(
        job,
        display_name=job.display_name if event.display_name is None else event.display_name,
        labels=job.labels if event.labels is None else event.labels,
        spec=replace(job.spec, **{name: value for name, value in given.items() if value is not None}),
        asked=asked,
        revision=job.last_event,
        updates=job.updates + 1,
    )


def _may_happen(job: Job, event: Event) -> bool:
    """Of a job that has ended nothing changes but what people call it."""
    match event:
        case SettingsChanged():
            return not job.has_ended or event == SettingsChanged(
                event.display_name, event.labels, changed_by=event.changed_by
            )
        case StateChanged(state):
            return _may_follow(job, state)
        case _:
            return not job.has_ended


def _may_follow(job: Job, state: State) -> bool:
    """The first event of every job puts it in the queue."""
    if job.last_event == 0:
        return isinstance(state, Queued)
    return type(state) in _NEXT[type(job.state)]
