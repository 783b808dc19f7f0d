"""The metrics of the service as a whole: jobs, workers, the queue, what is stored, what runs."""

import platform
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

from service.data.datasets import Datasets
from service.jobs.events import STATES, Paused, Queued
from service.jobs.job import Job
from service.jobs.jobs import Jobs
from service.jobs.scheduler import Scheduler, WaitsFor
from service.metrics.exposition import Labels, Metric, exposed
from service.models.registry import Models

PAUSED = "paused"
"""What a job waits for that waits for nothing but to be resumed."""

BUILD = (version("chainrule"), platform.python_version(), version("numpy"), version("ray"))


@dataclass(frozen=True)
class Fleet:
    """What they are read from."""

    jobs: Jobs
    scheduler: Scheduler
    datasets: Datasets
    models: Models
    directory: Path

    def now(self) -> "Moment":
        """All of it at this moment."""
        return Moment(self, self.jobs.all(), datetime.now(UTC))


@dataclass(frozen=True)
class Moment:
    """The fleet at some moment."""

    fleet: Fleet
    jobs: list[Job]
    time: datetime

    def jobs_by_state(self) -> Mapping[Labels, int]:
        """Every state has its number."""
        states = Counter[str](job.state.kind for job in self.jobs)
        return {(state.lower(),): states[state] for state in STATES}

    def workers_by_state(self) -> Mapping[Labels, int]:
        """Before its first step a job's workers are not known to have started."""
        working = [(job, self.fleet.jobs.progress(job.id)) for job in self.jobs if job.is_at_work]
        stepping = [(job, progress) for job, progress in working if progress.step]
        busy = sum(job.workers(progress) for job, progress in stepping)
        lost = sum(max(job.spec.workers - job.workers(progress), 0) for job, progress in stepping)
        return {("busy",): busy, ("lost",): lost, ("free",): max(self.fleet.scheduler.capacity - busy - lost, 0)}

    def queued(self) -> int:
        """How many jobs wait for their turn."""
        return sum(isinstance(job.state, Queued) for job in self.jobs)

    def longest_waits(self) -> Mapping[Labels, float]:
        """In seconds, by what is waited for."""
        longest: dict[Labels, float] = {(what,): 0.0 for what in (*WaitsFor, PAUSED)}
        for job in self.jobs:
            wait = self.fleet.scheduler.waits.get(job.id)
            if isinstance(job.state, Paused) or (wait and isinstance(job.state, Queued)):
                what = (PAUSED if wait is None or isinstance(job.state, Paused) else wait.what,)
                longest[what] = max(longest[what], (self.time - (job.since or job.created)).total_seconds())
        return longest

    @cached_property
    def disk(self) -> tuple[int, int] | None:
        """Free bytes and all of them; None where the file system doesn't say."""
        try:
            usage = shutil.disk_usage(self.fleet.directory)
        except OSError:
            return None
        return usage.free, usage.total


METRICS: tuple[Metric[Moment], ...] = (
    Metric("gauge", "chainrule_jobs", "Jobs by state.", Moment.jobs_by_state, labels=("state",)),
    Metric(
        "gauge",
        "chainrule_workers",
        "Workers: busy with a job; free; or lost, which a job is to have but has not at present.",
        Moment.workers_by_state,
        labels=("state",),
    ),
    Metric("gauge", "chainrule_queue_jobs", "Jobs that wait for their turn.", Moment.queued),
    Metric(
        "gauge",
        "chainrule_queue_wait_seconds",
        "How long the job has waited that waits longest for: capacity, more workers than the cluster has room for; "
        "workers, which other jobs have; priority, as others come first; paused, until somebody resumes it.",
        Moment.longest_waits,
        labels=("reason",),
    ),
    Metric("gauge", "chainrule_datasets", "Datasets that are kept.", lambda seen: seen.fleet.datasets.count),
    Metric(
        "gauge",
        "chainrule_dataset_bytes",
        "What all datasets together take on the disk. There is room for --total-dataset-bytes.",
        lambda seen: seen.fleet.datasets.stored_bytes,
    ),
    Metric("gauge", "chainrule_models", "Models that are kept.", lambda seen: seen.fleet.models.count),
    Metric(
        "gauge",
        "chainrule_model_bytes",
        "What all models together take on the disk.",
        lambda seen: seen.fleet.models.stored_bytes,
    ),
    Metric(
        "gauge",
        "chainrule_disk_free_bytes",
        "What is free on the file system of --data-dir. When it is full, jobs stop at their last checkpoint.",
        lambda seen: seen.disk and seen.disk[0],
    ),
    Metric(
        "gauge",
        "chainrule_disk_size_bytes",
        "The size of the file system of --data-dir.",
        lambda seen: seen.disk and seen.disk[1],
    ),
    Metric(
        "gauge",
        "chainrule_build_info",
        "Always 1; its labels say which versions run.",
        lambda _: {BUILD: 1},
        labels=("version", "python", "numpy", "ray"),
    ),
)


class FleetMetrics:
    """The metrics of one service."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def text(self) -> str:
        """Their part of a scrape."""
        return exposed(METRICS, [("", self._fleet.now())])
