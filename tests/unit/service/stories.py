"""What may happen to a job: one state and one event of every kind, and random lives."""

from datetime import datetime, timedelta

from hypothesis import strategies as st

from service.jobs.events import (
    Cancelled,
    CheckpointSaved,
    EpochCompleted,
    Event,
    Failed,
    Paused,
    Queued,
    RolledBack,
    Running,
    Starting,
    State,
    StateChanged,
    Succeeded,
    WaitingForWorkers,
    WorkerJoined,
    WorkerLost,
)
from service.jobs.health import Diagnosed, Diagnosis, HealthSampled, LayerHealth, Recovered, Trouble
from service.jobs.job import IllegalEvent, Job, advance
from tests.unit.service.examples import NOON, job

QUEUED = Queued("once more")
WAITING = WaitingForWorkers("none left")
SUCCEEDED = Succeeded(
    "ab" * 32,
    training_loss=0.1,
    training_accuracy=0.9,
    validation_loss=0.2,
    validation_accuracy=0.8,
    duration_seconds=12.5,
    validation_scores={"accuracy": 0.8, "f1": 0.75},
    confusion=((3.0, 0.0), (1.0, 2.5)),
)
FAILED = Failed("INTERNAL", "it broke")

PATHS: dict[str, tuple[State, ...]] = {
    "QUEUED": (),
    "STARTING": (Starting(),),
    "RUNNING": (Starting(), Running()),
    "WAITING_FOR_WORKERS": (Starting(), Running(), WAITING),
    "PAUSED": (Starting(), Running(), Paused()),
    "SUCCEEDED": (Starting(), Running(), SUCCEEDED),
    "FAILED": (FAILED,),
    "CANCELLED": (Cancelled(),),
}
"""How a job gets into each state."""

CHANGES: tuple[State, ...] = (QUEUED, Starting(), Running(), WAITING, Paused(), SUCCEEDED, FAILED, Cancelled())

EPOCH = EpochCompleted(
    1, 4, 0.5, 0.7, 0.6, None, 0.01, 1.5, training_scores={"accuracy": 0.7}, validation_scores={"f1": 0.625}
)
ROLLED_BACK = RolledBack(6, 4, 0.005, "the loss is NaN")
HEALTH = HealthSampled(
    4,
    0.5,
    (LayerHealth("layers.0", "dense", 0.25, 1.5, 0.5, 2.0, 0.001), LayerHealth("a", "relu", 0.5, 1.0, dead_ratio=0.25)),
    1.25,
)
OVERFITTED = Diagnosis(Trouble.OVERFITTING, 4, "it rose", "stop early")
DEAD = Diagnosis(Trouble.DEAD_UNITS, 4, "half are 0", "a smaller rate", "a")
HAPPENINGS: tuple[Event, ...] = (
    EPOCH,
    CheckpointSaved(3),
    WorkerLost(1, 2, "its process ended"),
    WorkerJoined(1, 3, "shared_memory"),
    ROLLED_BACK,
    HEALTH,
    Diagnosed(OVERFITTED),
    Diagnosed(DEAD),
    Recovered(Trouble.OVERFITTING, 8),
)


def job_in(state: str) -> Job:
    """A job in a state."""
    return job(*map(StateChanged, PATHS[state]))


_numbers = st.floats(allow_nan=False, allow_infinity=False)
_counts = st.integers(0, 10**12)
_maybe = st.none() | _numbers

_events = st.one_of(
    st.sampled_from(CHANGES).map(StateChanged),
    st.builds(Queued, st.text()).map(StateChanged),
    st.builds(Failed, st.text(), st.text()).map(StateChanged),
    st.builds(EpochCompleted, _counts, _counts, _numbers, _maybe, _maybe, _maybe, _numbers, _numbers),
    st.builds(CheckpointSaved, _counts),
    st.builds(WorkerLost, _counts, _counts, st.text()),
    st.builds(WorkerJoined, _counts, _counts, st.sampled_from(("shared_memory", "ray_objects"))),
    st.builds(RolledBack, _counts, _counts, _numbers, st.text()),
)


@st.composite
def stories(draw: st.DrawFn) -> list[tuple[datetime, Event]]:
    """A random life of a job after it was queued: events that may follow each other, each with its time."""
    made = job()
    story: list[tuple[datetime, Event]] = []
    for seconds, event in enumerate(draw(st.lists(_events, max_size=25))):
        time = NOON + timedelta(seconds=seconds, microseconds=draw(st.integers(0, 999_999)))
        try:
            made = advance(made, event, time)
        except IllegalEvent:
            continue
        story.append((time, event))
    return story
