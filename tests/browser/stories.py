"""Jobs that have been through a lot: their events are put into the store before the coordinator starts."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from service.jobs.events import Cancelled, EpochCompleted, Event, Running, Starting, StateChanged, WorkerLost
from service.jobs.health import Diagnosed, Diagnosis, HealthSampled, LayerHealth, Recovered, Trouble
from service.jobs.jobs import Jobs
from service.jobs.store import JobStore, Record
from service.wire.job import spec_text
from service.wire.spec import parse_spec
from tests.api.running import request

EPOCHS = 30
STEPS = 4
"""Steps in an epoch."""

HOSTILE = "<img src=x onerror=alert(1)> & \"'"

VANISHING = Diagnosis(
    Trouble.VANISHING_GRADIENT,
    8,
    "The gradient of layers.0 is 1e-06 times that of layers.6, in 5 of the last 5 looks.",
    "Use relu, initial weights that fit it, or residual blocks.",
    "layers.0",
)
PLATEAU = Diagnosis(Trouble.PLATEAU, 20, "The loss fell by 0.1 % in 5 epochs.", "Raise the learning rate.")


def troubled_job(directory: Path) -> str:
    """Puts a job into the store whose gradient vanishes, and that was cancelled; gives its id.

    Past all judgement: what is found wrong with it is what is told here, and nothing else.
    """
    events = (StateChanged(Starting()), StateChanged(Running()), *_events(), StateChanged(Cancelled()))
    with closing(JobStore(directory / "jobs.sqlite", spec_text())) as store:
        spec = parse_spec(request(epochs=EPOCHS).training_job.spec, "spec")
        job = Jobs(store).create(spec, 40, HOSTILE, "")
        first = job.last_event + 1
        store.append(job.id, *(Record(number, job.created, event) for number, event in enumerate(events, first)))
        return job.id


def _events() -> Iterator[Event]:
    for epoch in range(1, EPOCHS + 1):
        step = STEPS * epoch
        scores = {"accuracy": 1 - 0.8 / epoch, "f1": 1 - 0.9 / epoch}
        yield EpochCompleted(epoch, step, 2.0 / epoch**2, None, 2.0 / epoch, None, 0.05 / epoch, 0.5, epoch, {}, scores)
        yield HealthSampled(step, 0.5 / epoch, tuple(_layers(epoch)), 1.25)
        if epoch == 2:
            yield Diagnosed(VANISHING)
        if epoch == 5:
            yield Diagnosed(PLATEAU)
        if epoch == 9:
            yield Recovered(Trouble.PLATEAU, step)
            yield WorkerLost(1, step, HOSTILE)


def _layers(epoch: int) -> Iterator[LayerHealth]:
    for place in range(0, 8, 2):
        dense = LayerHealth(f"layers.{place}", "dense", 0.1, 1.1, 10.0 ** (place - 6) / epoch, 5.0, 0.001)
        yield dense
        flat = replace(dense, gradient_norm=None, parameter_norm=None, update_ratio=None, layer=f"layers.{place + 1}")
        yield replace(flat, kind="sigmoid", saturated_ratio=min(1.0, epoch / 40 + place / 10))
