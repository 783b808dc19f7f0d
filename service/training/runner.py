"""Runs a job from its turn to its end: data, trainer, model; and whatever goes wrong, a reason for it."""

import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import structlog
from structlog.contextvars import bound_contextvars

from service.cluster.cluster import Cluster
from service.data.datasets import Dataset, Datasets, read_column
from service.errors import ServiceError
from service.jobs.events import Failed, Paused, Queued, Starting, State, StateChanged, Succeeded
from service.jobs.job import Job
from service.jobs.jobs import Jobs
from service.jobs.scheduler import Share
from service.jobs.spec import JobSpec
from service.log import log_again
from service.models.blueprint import Blueprint
from service.models.registry import Models, Origin
from service.training.arrivals import Feed
from service.training.preparing import FOLDER, read_prepared
from service.training.promotion import with_rates
from service.training.session import (
    INTERNAL,
    Broken,
    Gone,
    Halted,
    Idle,
    News,
    Order,
    Outcome,
    Trained,
    Training,
    storage_failure,
)
from service.training.task import make_task
from service.training.timing import Anatomy, Timing
from service.training.trainer import Policy
from worker.network import Network
from worker.task import Data

NEWS_SECONDS = 0.5
"""How often a trainer is asked what is new, at the least: each time takes the workers' processors 5 ms."""

SOON_SECONDS = 0.1
"""How often before it has taken a step, which somebody may be waiting for."""

MOST_RESTARTS = 5
"""How often a job whose trainer is lost begins again at the same checkpoint."""

RECORD_SECONDS = 1.0
"""How often to try to record how a job ended, while the disk is full."""

_log = structlog.get_logger(__name__)


class Runner:
    """Runs jobs, each in the thread that calls `run`."""

    def __init__(
        self,
        jobs: Jobs,
        datasets: Datasets,
        models: Models,
        cluster: Cluster,
        policy: Policy,
        directory: Path,
        layers_json: Callable[[JobSpec], str],
        origin: Callable[[JobSpec, Dataset], Origin],
    ) -> None:
        """Checkpoints go below `directory`. `layers_json` writes a specification's network for the model's file, and
        `origin` what else is kept of its making.
        """
        self._jobs = jobs
        self._datasets = datasets
        self._models = models
        self._cluster = cluster
        self._policy = policy
        self._directory = directory
        self._layers_json = layers_json
        self._origin = origin
        self._stop = threading.Event()
        self._restarts: dict[str, tuple[int, int]] = {}
        self._trainings: dict[str, Training] = {}
        """Those that are under way, by job id."""
        self.timings: dict[str, Timing] = {}
        """Where the steps' time went, by job id."""
        jobs.listen(self._heed)

    def sweep(self) -> None:
        """Removes what a crash left of jobs that were just deleted. Where there is no job at all, the store is lost."""
        known = {job.id for job in self._jobs.all()}
        for path in self._directory.glob("*"):
            if known and path.name not in known:
                shutil.rmtree(path, ignore_errors=True)

    def stop(self) -> None:
        """Has every running job write a checkpoint and go back to the queue."""
        self._stop.set()
        for job_id in list(self._trainings):
            self._heed(job_id)

    def feed(self, job_id: str) -> Feed | None:
        """Where mini-batches for a job go; None while it has no trainer."""
        training = self._trainings.get(job_id)
        return training.feed if training else None

    def run(self, job_id: str, share: Share) -> None:
        """Trains a queued job. Returns when it has ended or was paused, or after `stop`."""
        with bound_contextvars(job=job_id):
            self._run(job_id, share)

    def _run(self, job_id: str, share: Share) -> None:
        try:
            if not self._jobs.record(job_id, StateChanged(Starting())) or not self._jobs.get(job_id).is_at_work:
                return  # it was cancelled or paused at this very moment
            state = self._train(self._jobs.get(job_id), share)
            if isinstance(state, Failed) and (missing := self._cluster.missing()):
                state = Queued(f"goes on when the Ray cluster is back: {missing}")
            self._end(job_id, state)
        finally:
            self._forget_deleted(job_id)  # once more: it may have been deleted while a checkpoint was being written

    def _end(self, job_id: str, state: State) -> None:
        """Records the state that a job is in after its run: on a full disk, once there is room for that."""
        while True:
            try:
                self._jobs.record(job_id, StateChanged(state))
            except OSError:
                _log.exception("can't record that the job left its workers; tries again", state=state.kind)
                if self._stop.wait(RECORD_SECONDS):
                    raise
            else:
                _log.info("job left its workers", state=state.kind)
                return

    def _train(self, job: Job, share: Share) -> State:
        """Trains the job as far as it goes, and returns the state that it is in then."""
        try:
            dataset, place = read_prepared(job.spec, self._datasets, self._directory / job.id)
            task = make_task(job.spec, dataset, "spec")
            own = self._directory / job.id
            layers, origin = self._layers_json(job.spec), self._origin(job.spec, dataset)
            blueprint = Blueprint(layers, task.network.input_shape, job.spec.input_column, origin)
            blueprint.write(own)
            order = Order(job.id, job.spec, task, own, self._policy, job.rates, job.asked)
            workers = share.target  # which may be changed at any time
            with self._cluster.train(order, dataset, _data(job.spec, dataset, place), workers) as training:
                outcome = self._follow(job, training, share, workers)
            match outcome:
                case Trained():
                    return self._succeeded(job.id, task.network, blueprint, outcome)
                case Broken(report, failed):
                    _log.error("the trainer failed", exception=report)
                    return failed
                case Halted():
                    return Queued(self._why_halted())
                case Idle(reason):  # unless it was paused, and perhaps resumed, at this very moment
                    return Paused(reason) if self._jobs.get(job.id).is_at_work else Queued()
                case Gone(reason):
                    return self._again(job.id, reason)
                case failed:
                    return failed
        except ServiceError as error:
            return Failed(error.reason, error.message)
        except OSError as error:
            _log.exception("storage failed")
            return storage_failure(error)
        except Exception:
            _log.exception("job failed")
            return INTERNAL

    def _follow(self, job: Job, training: Training, share: Share, lent: int) -> Outcome:
        """Passes on what the trainer tells, and what is asked of it, until it has ended."""
        job_id, asked = job.id, job.asked
        self._trainings[job_id] = training
        try:
            self._heed(job_id)  # what happened to the job before this was known
            acknowledged = 0
            anatomy = Anatomy()
            has_begun = False
            while True:
                news = training.news(acknowledged, NEWS_SECONDS if has_begun else SOON_SECONDS)
                has_begun = news.progress.step > 0
                self._take(job_id, news, anatomy)
                acknowledged = news.posted[-1].number if news.posted else acknowledged
                if news.outcome is not None:
                    return news.outcome
                if share.target != lent:
                    lent = share.target
                    training.lend(lent)
                    share.settle(lent)
                if self._jobs.has(job_id) and (newest := self._jobs.get(job_id).asked) and newest != asked:
                    asked = newest
                    training.ask(asked)
        finally:
            del self._trainings[job_id]

    def _take(self, job_id: str, news: News, anatomy: Anatomy) -> None:
        """Makes the news durable, in one go."""
        log_again(news.logged)
        if not isinstance(news.outcome, Gone):  # which knows of none
            self.timings[job_id] = news.timing
        if step := news.progress.step:
            phases = anatomy.at(step, news.timing.seconds)
            self._jobs.set_progress(job_id, replace(news.progress, phase_seconds=phases))
        self._jobs.record(job_id, *(posted.event for posted in news.posted))

    def _heed(self, job_id: str) -> None:
        """Has a trainer stop at once when its job isn't to go on: it was paused, cancelled or deleted."""
        job = self._jobs.get(job_id) if self._jobs.has(job_id) else None
        training = self._trainings.get(job_id)
        if training and (self._stop.is_set() or job is None or not job.is_at_work):
            training.halt()
        self._forget_deleted(job_id)

    def _why_halted(self) -> str:
        return "goes on when the coordinator, which was stopped, starts again" if self._stop.is_set() else ""

    def _again(self, job_id: str, reason: str) -> State:
        """Back to the queue; unless the trainer was lost again and again without getting anywhere."""
        if self._stop.is_set():
            return Queued(self._why_halted())
        step = self._jobs.get(job_id).checkpoint_step if self._jobs.has(job_id) else 0
        before, count = self._restarts.get(job_id, (step, 0))
        count = count + 1 if step == before else 1
        self._restarts[job_id] = (step, count)
        if count > MOST_RESTARTS:
            return Failed("TRAINER_LOST", f"the job's trainer was lost {count} times after step {step}")
        return Queued(reason)

    def _succeeded(self, job_id: str, network: Network, blueprint: Blueprint, trained: Trained) -> Succeeded:
        job, epoch, now = self._jobs.get(job_id), trained.epoch, datetime.now(UTC)
        validation = (epoch.validation_loss, epoch.validation_accuracy, epoch.validation_scores)
        layers, column = blueprint.layers_json, blueprint.input_column
        origin = with_rates(blueprint.origin, job.rates, epoch.step)
        model = self._models.add(
            job_id, network, layers, trained.params, validation, now, column, origin, job.created_by
        )
        return Succeeded(
            parameters_sha256=model.parameters_sha256,
            training_loss=epoch.training_loss,
            training_accuracy=epoch.training_accuracy,
            validation_loss=epoch.validation_loss,
            validation_accuracy=epoch.validation_accuracy,
            duration_seconds=(now - (job.started or now)).total_seconds(),
            epoch=epoch.epoch,
            reason=trained.reason,
            validation_scores=epoch.validation_scores,
            confusion=trained.confusion,
        )

    def _forget_deleted(self, job_id: str) -> None:
        if not self._jobs.has(job_id):
            self.timings.pop(job_id, None)
            self._restarts.pop(job_id, None)
            shutil.rmtree(self._directory / job_id, ignore_errors=True)
        elif self._jobs.get(job_id).has_ended:  # and never learns again
            shutil.rmtree(self._directory / job_id / FOLDER, ignore_errors=True)


def _data(spec: JobSpec, dataset: Dataset, place: Path) -> Data:
    numbers = (dataset.column(name) for name in spec.columns)
    return Data(*(read_column(place, number) for number in numbers if number is not None))
