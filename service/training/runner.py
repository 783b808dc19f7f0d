"""Runs a job from its turn to its end: data, workers, trainer, model; and whatever goes wrong, a reason for it."""

import errno
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import structlog

from service.cluster.pool import PoolError, WorkerPool
from service.data.datasets import Datasets
from service.errors import ServiceError
from service.jobs.job import Failed, Job, Queued, Starting, StateChanged, Succeeded
from service.jobs.jobs import Jobs
from service.jobs.spec import JobSpec
from service.models.registry import Models
from service.training.checkpoints import Checkpoints
from service.training.state import Diverged
from service.training.task import make_task
from service.training.timing import Timing
from service.training.trainer import JobEnded, Policy, Stopped, Trainer, WorkersLost
from worker.task import Data

_log = structlog.get_logger(__name__)


class Runner:
    """Runs jobs, each in the thread that calls `run`."""

    def __init__(
        self,
        jobs: Jobs,
        datasets: Datasets,
        models: Models,
        pool: WorkerPool,
        policy: Policy,
        directory: Path,
        layers_json: Callable[[JobSpec], str],
    ) -> None:
        """Checkpoints go below `directory`; `layers_json` writes a specification's network for the model's file."""
        self._jobs = jobs
        self._datasets = datasets
        self._models = models
        self._pool = pool
        self._policy = policy
        self._directory = directory
        self._layers_json = layers_json
        self._stop = threading.Event()
        self.timings: dict[str, Timing] = {}
        """Where the steps' time went, by job id."""
        jobs.listen(self._forget_deleted)

    def stop(self) -> None:
        """Has every running job write a checkpoint and go back to the queue."""
        self._stop.set()

    def run(self, job_id: str) -> None:
        """Trains a queued job. Returns when it has ended, or after `stop`."""
        try:
            with suppress(JobEnded):
                self._record(job_id, StateChanged(Starting()))
                state = self._outcome(job_id)
                self._record(job_id, StateChanged(state))
                _log.info("job left its workers", job=job_id, state=state.kind)
        finally:
            self._forget_deleted(job_id)  # once more: it may have been deleted while a checkpoint was being written

    def _outcome(self, job_id: str) -> Succeeded | Failed | Queued:
        try:
            return self._train(self._jobs.get(job_id))
        except JobEnded:
            raise
        except Stopped:
            return Queued("goes on when the coordinator, which was stopped, starts again")
        except Diverged as error:
            return Failed("TRAINING_DIVERGED", str(error))
        except (WorkersLost, PoolError) as error:
            return Failed("WORKERS_LOST", str(error))
        except ServiceError as error:
            return Failed(error.reason, error.message)
        except OSError as error:
            _log.exception("storage failed", job=job_id)
            if error.errno == errno.ENOSPC:
                return Failed("STORAGE_FULL", "the disk is full; the last checkpoint before that is kept")
            return Failed("STORAGE_FAILED", "a file of the job can't be read or written; the service's log says more")
        except Exception:
            _log.exception("job failed", job=job_id)
            return Failed("INTERNAL", "an error in the service itself; its log says more")

    def _train(self, job: Job) -> Succeeded:
        dataset = self._datasets.get(job.spec.dataset)
        task = make_task(job.spec, dataset, "spec")
        columns = (dataset.column(job.spec.input_column), dataset.column(job.spec.target_column))
        data = Data(*(self._datasets.array(dataset.id, number) for number in columns if number is not None))
        with self._pool.open(task, data, job.spec.workers) as workers:
            trainer = Trainer(
                job.spec,
                task,
                workers,
                Checkpoints(self._directory / job.id),
                self._policy,
                record=lambda event: self._jobs.record(job.id, event),
                set_progress=lambda progress: self._jobs.set_progress(job.id, progress),
                stop=self._stop,
            )
            self.timings[job.id] = trainer.timing
            params, epoch = trainer.train()
        now = datetime.now(UTC)
        validation = (epoch.validation_loss, epoch.validation_accuracy)
        layers = self._layers_json(job.spec)
        model = self._models.add(job.id, task.network, layers, params, validation, now)
        return Succeeded(
            parameters_sha256=model.parameters_sha256,
            training_loss=epoch.training_loss,
            training_accuracy=epoch.training_accuracy,
            validation_loss=epoch.validation_loss,
            validation_accuracy=epoch.validation_accuracy,
            duration_seconds=(now - (self._jobs.get(job.id).started or now)).total_seconds(),
        )

    def _record(self, job_id: str, event: StateChanged) -> None:
        if not self._jobs.record(job_id, event):
            raise JobEnded

    def _forget_deleted(self, job_id: str) -> None:
        if not self._jobs.has(job_id):
            self.timings.pop(job_id, None)
            shutil.rmtree(self._directory / job_id, ignore_errors=True)
