"""A job at the moment of a scrape, and the figures of it that take more than a look."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from service.cluster.workers import CAUSES
from service.jobs.events import Progress, Running
from service.jobs.health import HealthSampled, Trouble
from service.jobs.job import Job
from service.metrics.exposition import Labels, Spread
from service.training.timing import NOW_AND_THEN, PHASES, Histogram, Timing

MOST_WORKERS = 64
"""How many of a job's workers have series of their own, by their number."""


@dataclass(frozen=True)
class Shown:
    """What a job's metrics are read from."""

    job: Job
    progress: Progress
    timing: Timing | None
    """None for one that this process has not run."""
    now: float
    """In seconds since 1970."""

    @property
    def health(self) -> HealthSampled | None:
        """The newest look at its layers: what is known live, or else from the events."""
        return self.progress.health or self.job.health

    def training_loss(self) -> float | None:
        """Of the newest step, or else of the newest epoch."""
        epoch = self.job.epoch
        return self.progress.training_loss if self.progress.step else epoch.training_loss if epoch else None

    def scores(self, of: Literal["training", "validation"]) -> Mapping[Labels, float]:
        """Of the newest epoch, by name."""
        epoch = self.job.epoch
        if epoch is None:
            return {}
        scores = epoch.training_scores if of == "training" else epoch.validation_scores
        return {(name,): score for name, score in scores.items()}

    def diagnoses(self) -> Mapping[Labels, float]:
        """1 for what is wrong, 0 for what isn't."""
        return {(trouble.lower(),): float(trouble in self.job.diagnoses) for trouble in Trouble}

    def phases(self) -> Mapping[Labels, Spread]:
        """The time of each phase."""
        timing = self.timing
        return {(name,): spread(timing.phases[name]) for name in (*PHASES, *NOW_AND_THEN)} if timing else {}

    def compute_seconds(self) -> Mapping[Labels, float]:
        """Of each worker, by its number."""
        seconds = self.timing.compute_seconds if self.timing else {}
        return {(str(worker),): taken for worker, taken in seconds.items() if worker < MOST_WORKERS}

    def failures(self) -> Mapping[Labels, int]:
        """By cause."""
        return {(cause,): self.timing.losses[cause] if self.timing else 0 for cause in CAUSES}

    def exchanges(self) -> Mapping[Labels, int]:
        """How many workers use each."""
        workers = self.job.workers(self.progress)
        shared = min(self.progress.shared_memory_workers, workers)
        return {("shared_memory",): shared, ("ray_objects",): workers - shared}

    def straggler_ratio(self) -> float | None:
        """As of the newest look."""
        return self.health.straggler_ratio if self.health else None

    def remaining_seconds(self) -> float | None:
        """The rows that are left at the pace of the last seconds."""
        pace, shards = self.progress.samples_per_second, self.job.shards
        if not isinstance(self.job.state, Running) or not pace:
            return None
        done = self.job.steps(self.progress)
        return (shards.samples(max(self.job.total_steps, done)) - shards.samples(done)) / pace

    def checkpoint_age(self) -> float | None:
        """Since the newest one, or else since the job began to run."""
        if not isinstance(self.job.state, Running):
            return None
        saved = self.timing.checkpoint_time if self.timing else None
        return max(self.now - (saved or (self.job.since or self.job.created).timestamp()), 0.0)


def spread(histogram: Histogram) -> Spread:
    """A histogram, apart from the one that goes on counting."""
    return Spread(tuple(histogram.counts), histogram.seconds)
