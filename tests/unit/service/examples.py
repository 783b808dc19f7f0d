"""Small things that are right, to be varied: a specification, its data, jobs and events."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from service.jobs.events import Event, Queued, StateChanged
from service.jobs.job import Job, advance
from service.jobs.jobs import Jobs
from service.jobs.spec import JobSpec
from service.jobs.store import JobStore
from service.training.optimizers import Momentum
from service.wire.job import spec_text
from worker.initializers import Initializer
from worker.layers import Dense, ReLU
from worker.losses import SoftmaxCrossEntropy
from worker.network import Network
from worker.task import Data, Task

ROWS, FEATURES, CLASSES = 30, 4, 3
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

SPEC = JobSpec(
    dataset="flowers",
    input_column="x",
    target_column="y",
    validation_fraction=0.2,
    layers=(Dense(5, Initializer.HE_NORMAL), ReLU(), Dense(CLASSES)),
    loss=SoftmaxCrossEntropy(),
    optimizer=Momentum(),
    learning_rate=0.05,
    epochs=3,
    batch_size=7,
    shards=3,
    workers=2,
    seed=1,
    max_workers=2,
    shuffle_window=0,
)
"""24 rows to train on in 4 steps an epoch, the last of 3 rows: 12 steps in all."""

_random = np.random.default_rng(2)
INPUTS = _random.standard_normal((ROWS, FEATURES)).astype(np.float32)
TARGETS = _random.integers(CLASSES, size=ROWS)
DATA = Data(INPUTS, TARGETS)


def spec(**changes: Any) -> JobSpec:
    """The specification with some fields changed."""
    return replace(SPEC, **changes)


def task(of: JobSpec = SPEC, rows: int = ROWS) -> Task:
    """What workers compute for a specification."""
    network = Network(of.layers, (FEATURES,), of.padding, of.credit_assignment, of.traits)
    assert of.loss is not None
    return Task(network, of.loss, of.shards_of(rows))


def job(*events: Event, of: JobSpec = SPEC, **fields: Any) -> Job:
    """A job to which some events happened, the first of all being that it was queued."""
    made = Job("job-a", "a job", of, ROWS, NOON)
    for event in (StateChanged(Queued()), *events):
        made = advance(made, event, NOON)
    return replace(made, **fields)


@contextmanager
def jobs_in(directory: Path) -> Iterator[Jobs]:
    """The jobs stored in a directory."""
    with closing(JobStore(directory / "jobs.sqlite", spec_text())) as store:
        yield Jobs(store)
