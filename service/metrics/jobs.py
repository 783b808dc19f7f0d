"""The metrics of each job: how well it learns, how far it is, where the time of its steps goes, what went wrong.

A job has series from its start until some time after its end, so that their number stays bounded however many jobs
there were. What a job doesn't have (a validation loss before the first epoch) has no series.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime

from service.jobs.job import Job
from service.jobs.jobs import Jobs
from service.metrics import layers
from service.metrics.exposition import Metric, exposed, labels_text
from service.metrics.shown import MOST_WORKERS, Shown, spread
from service.training.timing import BUCKETS, RECOVERY_BUCKETS, Timing

JOB = ("job_id",)
"""The label of a job's series. Prometheus itself puts `job` on everything, for the scrape's target."""

MOST_JOBS = 200
"""How many jobs have series; those at work come first, then those that something happened to last."""


METRICS: tuple[Metric[Shown], ...] = (
    Metric(
        "gauge",
        "chainrule_job_info",
        "Always 1; its labels say what a job is called and how it stands.",
        lambda seen: {(seen.job.display_name, seen.job.state.kind.lower()): 1},
        labels=("display_name", "state"),
    ),
    Metric("gauge", "chainrule_training_loss", "Mean loss over the rows of the newest step.", Shown.training_loss),
    Metric(
        "gauge",
        "chainrule_validation_loss",
        "Mean loss over the held-out rows after the newest epoch. Where it rises while the training loss falls, the "
        "network learns the rows by heart.",
        lambda seen: seen.job.epoch.validation_loss if seen.job.epoch else None,
    ),
    Metric(
        "gauge",
        "chainrule_validation_accuracy_ratio",
        "Share of the held-out rows classified correctly after the newest epoch.",
        lambda seen: seen.job.epoch.validation_accuracy if seen.job.epoch else None,
    ),
    Metric(
        "gauge",
        "chainrule_validation_score",
        "Scores of the held-out rows after the newest epoch: accuracy, f1, rmse and so on.",
        lambda seen: seen.scores("validation"),
        labels=("score",),
    ),
    Metric(
        "gauge",
        "chainrule_training_score",
        "Scores of the newest epoch's training rows, each taken in its step: accuracy, where there is one. Where it is "
        "far above that of the held-out rows, the network learns the rows by heart.",
        lambda seen: seen.scores("training"),
        labels=("score",),
    ),
    Metric(
        "gauge",
        "chainrule_learning_rate",
        "Learning rate of the newest step.",
        lambda seen: seen.job.learning_rate(seen.progress),
    ),
    Metric("counter", "chainrule_steps_total", "Steps applied.", lambda seen: seen.job.steps(seen.progress)),
    Metric(
        "gauge",
        "chainrule_steps_expected",
        "Steps that the job takes in all; fewer, once it stopped early.",
        lambda seen: seen.job.total_steps,
    ),
    Metric(
        "counter",
        "chainrule_samples_total",
        "Training rows used, once for every epoch.",
        lambda seen: seen.job.shards.samples(seen.job.steps(seen.progress)),
    ),
    Metric(
        "counter",
        "chainrule_epochs_total",
        "Epochs completed.",
        lambda seen: seen.job.epoch.epoch if seen.job.epoch else 0,
    ),
    Metric(
        "gauge",
        "chainrule_remaining_seconds",
        "Time until the last step at the pace of the last seconds, while the job runs; it may stop earlier.",
        Shown.remaining_seconds,
    ),
    Metric(
        "gauge",
        "chainrule_diagnosis",
        "1 for what is wrong with the training at present, 0 for what isn't. `chainrule jobs show` says why, and what "
        "can be done.",
        Shown.diagnoses,
        labels=("diagnosis",),
    ),
    Metric(
        "counter",
        "chainrule_rollbacks_total",
        "How often the job diverged and was taken back to the start of its epoch, with half the learning rate.",
        lambda seen: seen.job.rollbacks,
    ),
    Metric(
        "histogram",
        "chainrule_step_seconds",
        "Time from the start of a step to its end.",
        lambda seen: spread(seen.timing.steps) if seen.timing else None,
        bounds=BUCKETS,
    ),
    Metric(
        "histogram",
        "chainrule_step_phase_seconds",
        "Time that steps spent in a phase. These add up to a step: split, orders out; wait, what passes until the last "
        "answer and is nobody's computing; forward and backward, of the worker that takes longest; gather, answers in; "
        "average; optimizer. validate and checkpoint come now and then, between steps.",
        Shown.phases,
        labels=("phase",),
        bounds=BUCKETS,
    ),
    Metric(
        "gauge",
        "chainrule_job_workers",
        "Workers of a job that are ready or at work.",
        lambda seen: seen.job.workers(seen.progress),
    ),
    Metric(
        "counter",
        "chainrule_worker_compute_seconds_total",
        f"Time that each of a job's first {MOST_WORKERS} workers spent computing, by its number. "
        "Short steps are shared by as few of them as make them fastest.",
        Shown.compute_seconds,
        labels=("worker",),
    ),
    Metric(
        "gauge",
        "chainrule_straggler_ratio",
        "How many times as long as the median the slowest worker takes for a shard. The others wait for it.",
        Shown.straggler_ratio,
    ),
    Metric(
        "counter",
        "chainrule_worker_failures_total",
        "Workers lost, by cause: the process ended; it was too slow to answer; it has not joined in time; or it can't "
        "be reached. Their shards go to others.",
        Shown.failures,
        labels=("cause",),
    ),
    Metric(
        "histogram",
        "chainrule_recovery_seconds",
        "Time from a worker's loss to its return.",
        lambda seen: spread(seen.timing.recoveries) if seen.timing else None,
        bounds=RECOVERY_BUCKETS,
    ),
    Metric(
        "counter",
        "chainrule_exchange_bytes_total",
        "Parameters that workers were given to read, and gradients that they brought.",
        lambda seen: seen.timing.exchanged_bytes if seen.timing else None,
    ),
    Metric(
        "gauge",
        "chainrule_exchange_workers",
        "Workers by how parameters and gradients travel. Shared memory is the fast way; Ray's objects are for workers "
        "on other machines.",
        Shown.exchanges,
        labels=("exchange",),
    ),
    Metric(
        "gauge",
        "chainrule_checkpoint_age_seconds",
        "Time since a running job's last checkpoint, or since it began to run: the work that is done again if its "
        "trainer is lost.",
        Shown.checkpoint_age,
    ),
    Metric(
        "gauge",
        "chainrule_checkpoint_bytes",
        "Size of a job's last checkpoint.",
        lambda seen: seen.timing.checkpoint_bytes if seen.timing else None,
    ),
)


class JobMetrics:
    """Which jobs are shown, and their metrics."""

    def __init__(
        self,
        jobs: Jobs,
        timing: Callable[[str], Timing | None],
        retention_seconds: float,
    ) -> None:
        """Series of a job that ended more than `retention_seconds` ago are left out."""
        self._jobs = jobs
        self._timing = timing
        self._retention_seconds = retention_seconds

    def text(self) -> str:
        """Their part of a scrape."""
        now = time.time()
        return exposed(
            (*METRICS, *layers.METRICS),
            [
                (labels_text(JOB, (job.id,)), Shown(job, self._jobs.progress(job.id), self._timing(job.id), now))
                for job in self._shown(datetime.fromtimestamp(now, UTC))
            ],
        )

    def _shown(self, now: datetime) -> list[Job]:
        """The jobs that have series, in the order in which they were created."""
        shown = [
            job
            for job in self._jobs.all()
            if job.started and not (job.ended and (now - job.ended).total_seconds() >= self._retention_seconds)
        ]
        if len(shown) <= MOST_JOBS:
            return shown
        first = sorted(shown, key=lambda job: (job.is_at_work, job.since or job.created), reverse=True)[:MOST_JOBS]
        return sorted(first, key=lambda job: job.created)
