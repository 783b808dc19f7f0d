"""Runs one example: its data to the server, its job to the end, its model judged."""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from chainrule import AlreadyExists, Client, NotFound
from chainrule.jobfile import read_job_file
from chainrule.resources import bare_id, full_name
from chainrule.v1.dataset_service_pb2 import Dataset
from chainrule.v1.training_job_pb2 import TrainingJob
from examples.catalog import Example
from examples.data import SOURCES, STORE, every
from examples.data.columns import Columns, as_csv, has_text

SHORT_ROWS, SHORT_SERIES, SHORT_BATCH, SHORT_EPISODES = 96, 240, 32, 8


@dataclass(frozen=True)
class Outcome:
    """How an example went."""

    job: TrainingJob
    score: float | None
    """None if the job failed, or there is no such score."""
    seconds: float
    """From the job's creation to its end, and the judging."""


@dataclass(frozen=True)
class Runner:
    """Runs examples on a server, in full or shortened to one epoch of a few rows."""

    client: Client
    short: bool = False
    stand_in: bool = False
    """Whether meaningless numbers take the place of data that would have to be fetched."""
    store: Path = STORE

    def run(self, example: Example, models: Mapping[str, str], workers: int | None = None) -> Outcome:
        """Runs it; `models` are those that examples before it made, by the example's name.

        Raises Missing if its data can't be had, JobFileError, and what the client raises.
        """
        job = read_job_file(example.job_file).job
        if job.spec.HasField("data"):
            job.spec.data.dataset = self.provide(bare_id(job.spec.data.dataset))
        if example.after:
            job.spec.initial_model = models[example.after]
        if self.short:
            shorten(job)
        if workers is not None:
            job.spec.workers = workers
        judged_on = self.provide(example.judged_on) if example.judged_on else ""
        started = time.monotonic()
        ended = self.client.wait(self.client.create_job(job).name)
        score = self._score(example, ended, judged_on)
        return Outcome(ended, score, time.monotonic() - started)

    def provide(self, name: str) -> str:
        """The resource name of a dataset, which is on the server afterwards. Raises Missing."""
        identity = f"{name}-short" if self.short else name
        try:
            self.client.get_dataset(identity)
        except NotFound:
            with suppress(AlreadyExists):  # someone else may be faster
                columns = self._columns(name)
                if has_text(columns):
                    self.client.upload_dataset(as_csv(columns), identity, layout=Dataset.CSV)
                else:
                    self.client.upload_dataset(columns, identity)
        return full_name("datasets", identity)

    def _columns(self, name: str) -> Columns:
        source = SOURCES[name]
        rows = SHORT_SERIES if source.is_series else SHORT_ROWS
        if self.stand_in and source.columns:
            return source.stand_in(rows)
        columns = source.make(self.store)
        if self.short and source.is_series:
            return {name: column[:rows] for name, column in columns.items()}
        return every(columns, rows) if self.short else columns

    def _score(self, example: Example, job: TrainingJob, judged_on: str) -> float | None:
        if job.state != TrainingJob.SUCCEEDED:
            return None
        scores = job.result.validation_scores
        if judged_on:
            scores = self.client.evaluate_model(job.result.model, judged_on).scores
        return scores.get(example.score)


def shorten(job: TrainingJob) -> None:
    """Leaves one epoch of a job, in steps of few rows or of few episodes."""
    job.spec.epochs = 1
    if job.spec.HasField("environment"):
        job.spec.environment.episodes, job.spec.environment.validation_episodes = SHORT_EPISODES, SHORT_EPISODES
    job.spec.batch_size = min(job.spec.batch_size or SHORT_BATCH, SHORT_BATCH)
