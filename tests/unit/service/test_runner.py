"""A job from its turn to its end; and whatever goes wrong, a reason for it."""

import errno
import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.cluster.local_pool import LocalPool
from service.cluster.pool import PoolError, WorkerPool, Workers
from service.data.datasets import Datasets
from service.jobs.job import Cancelled, Failed, Job, Queued, Succeeded
from service.jobs.jobs import Jobs
from service.jobs.spec import JobSpec
from service.models.registry import Models
from service.training.optimizers import Sgd
from service.training.runner import Runner
from service.training.trainer import Policy
from service.wire.job import layers_json
from tests.unit.service.examples import DATA, ROWS, SPEC, jobs_in, spec, task
from tests.unit.service.test_trainer import BITS, EPOCHS, undisturbed
from tests.unit.service.unreliable import GatedPool, UnreliableWorkers
from worker.task import Data, Task


@dataclass
class ScriptedPool:
    """Gives the workers that a test makes, or raises what it says."""

    make: Callable[[Task, Data, int], Workers]

    def capacity(self) -> int:
        return 4

    @contextmanager
    def open(self, task: Task, data: Data, workers: int) -> Iterator[Workers]:
        yield self.make(task, data, workers)


@dataclass
class Bench:
    """Everything a runner needs, on one directory."""

    jobs: Jobs
    directory: Path
    policy: Policy = field(default_factory=lambda: Policy(0.0, 0.05))

    def __post_init__(self) -> None:
        self.datasets = Datasets(self.directory / "datasets", 10**6)
        self.models = Models(self.directory / "models")
        if not self.datasets.all():
            self.upload()

    def upload(self) -> None:
        file = io.BytesIO()
        np.savez(file, x=DATA.inputs, y=DATA.targets)
        data = file.getvalue()
        with self.datasets.receive(len(data)) as part:
            part.write(0, data)
            self.datasets.add(SPEC.dataset, part, hashlib.sha256(data).hexdigest())

    def runner(self, pool: WorkerPool | None = None) -> Runner:
        directory = self.directory / "checkpoints"
        return Runner(self.jobs, self.datasets, self.models, pool or LocalPool(), self.policy, directory, layers_json)

    def create(self, of: JobSpec = SPEC) -> str:
        return self.jobs.create(of, ROWS, "", "").id

    def run(self, of: JobSpec = SPEC, pool: WorkerPool | None = None) -> Job:
        job_id = self.create(of)
        self.runner(pool).run(job_id)
        return self.jobs.get(job_id)

    def checkpoints(self, job: Job) -> list[str]:
        return sorted(path.name for path in (self.directory / "checkpoints" / job.id).glob("step-*"))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with jobs_in(tmp_path) as jobs:
        yield Bench(jobs, tmp_path)


def kinds(bench: Bench, job: Job) -> list[str]:
    return [
        state.kind if (state := getattr(record.event, "state", None)) else record.event.kind
        for record in bench.jobs.events(job.id, 0, -1)
    ]


def test_a_job_that_succeeds_leaves_a_model(bench: Bench) -> None:
    bench.policy = Policy(1e9, 1.0)
    job = bench.run()
    assert isinstance(job.state, Succeeded)
    assert kinds(bench, job) == ["QUEUED", "STARTING", "RUNNING", *["epoch_completed"] * 3, "SUCCEEDED"]
    last = EPOCHS[-1]
    assert job.state.parameters_sha256 == hashlib.sha256(BITS).hexdigest()
    assert (job.state.training_loss, job.state.training_accuracy) == (last.training_loss, last.training_accuracy)
    assert (job.state.validation_loss, job.state.validation_accuracy) == (
        last.validation_loss,
        last.validation_accuracy,
    )
    assert job.state.duration_seconds > 0
    model = bench.models.get(job.id)
    assert (model.parameters_sha256, model.validation_loss) == (job.state.parameters_sha256, last.validation_loss)


def test_a_job_goes_on_after_a_stop_with_the_same_bits(bench: Bench) -> None:
    pool = GatedPool()
    runner, job_id = bench.runner(pool), bench.create()
    thread = threading.Thread(target=runner.run, args=(job_id,))
    thread.start()
    assert pool.entered.wait(10)
    runner.stop()
    pool.gate.set()
    thread.join(10)
    stopped = bench.jobs.get(job_id)
    assert stopped.state == Queued("goes on when the coordinator, which was stopped, starts again")
    assert bench.checkpoints(stopped) == ["step-000000000001.safetensors"]
    bench.runner().run(job_id)
    ended = bench.jobs.get(job_id).state
    assert isinstance(ended, Succeeded)
    assert ended.parameters_sha256 == hashlib.sha256(BITS).hexdigest()


def raises(error: Exception) -> ScriptedPool:
    def make(_task: Task, _data: Data, _workers: int) -> Workers:
        raise error

    return ScriptedPool(make)


LOSES_ALL = ScriptedPool(lambda t, data, n: UnreliableWorkers(t, data, n, {3: range(n)}, comes_back=lambda: False))

FAILURES: list[tuple[WorkerPool, JobSpec, str, str]] = [
    (
        LocalPool(),
        spec(learning_rate=1e30, optimizer=Sgd()),
        "TRAINING_DIVERGED",
        "A smaller learning rate usually helps",
    ),
    (LOSES_ALL, SPEC, "WORKERS_LOST", "all workers were lost, and none came back within 0.05 seconds"),
    (raises(PoolError("no worker started")), SPEC, "WORKERS_LOST", "no worker started"),
    (raises(OSError(errno.ENOSPC, "secret")), SPEC, "STORAGE_FULL", "the disk is full; the last checkpoint"),
    (
        raises(OSError(errno.EIO, "secret")),
        SPEC,
        "STORAGE_FAILED",
        "can't be read or written; the service's log says more",
    ),
    (raises(RuntimeError("secret")), SPEC, "INTERNAL", "an error in the service itself; its log says more"),
    (raises(MemoryError("secret")), SPEC, "INTERNAL", "an error in the service itself"),
    (LocalPool(), spec(dataset="gone"), "DATASET_NOT_FOUND", "there is no dataset datasets/gone"),
]


@pytest.mark.parametrize(("pool", "of", "reason", "told"), FAILURES, ids=[f"{r}: {t[:20]}" for *_, r, t in FAILURES])
def test_whatever_goes_wrong_has_a_reason(pool: WorkerPool, of: JobSpec, reason: str, told: str, bench: Bench) -> None:
    job = bench.run(of, pool)
    assert isinstance(job.state, Failed)
    assert job.state.reason == reason
    assert told in job.state.message
    assert "secret" not in job.state.message
    assert bench.models.all() == []


def test_a_job_that_fails_keeps_its_checkpoints(bench: Bench) -> None:
    assert bench.checkpoints(bench.run(SPEC, LOSES_ALL))[-1] == "step-000000000003.safetensors"


def test_a_job_cancelled_in_the_queue_is_not_run(bench: Bench) -> None:
    job_id = bench.create()
    bench.jobs.cancel(job_id)
    bench.runner(raises(AssertionError("it was run"))).run(job_id)
    assert bench.jobs.get(job_id).state == Cancelled()


@pytest.mark.parametrize("delete", [False, True])
def test_a_job_cancelled_in_a_step_takes_no_other(delete: bool, bench: Bench) -> None:
    """And one that is deleted on top leaves nothing behind, though it was about to write a checkpoint."""
    pool = GatedPool()
    job_id, runner = bench.create(spec(epochs=1000)), bench.runner(pool)
    thread = threading.Thread(target=runner.run, args=(job_id,))
    thread.start()
    assert pool.entered.wait(10)
    bench.jobs.cancel(job_id)
    if delete:
        bench.jobs.delete(job_id)
    pool.gate.set()
    thread.join(10)
    assert not thread.is_alive()
    assert bench.jobs.has(job_id) != delete
    assert list((bench.directory / "checkpoints").glob("*")) == []
    assert bench.models.all() == []
    assert (job_id in runner.timings) != delete


def test_deleting_a_job_removes_its_checkpoints_and_keeps_its_model(bench: Bench) -> None:
    runner, job_id = bench.runner(), bench.create()
    runner.run(job_id)
    assert bench.checkpoints(bench.jobs.get(job_id))
    assert job_id in runner.timings
    bench.jobs.delete(job_id)
    assert list((bench.directory / "checkpoints").glob("*")) == []
    assert job_id not in runner.timings
    assert [model.id for model in bench.models.all()] == [job_id]


def test_jobs_at_once_do_not_disturb_each_other(bench: Bench) -> None:
    specs = [spec(seed=seed, shards=1 + seed, workers=1) for seed in range(4)]
    runner, ids = bench.runner(), [bench.create(of) for of in specs]
    threads = [threading.Thread(target=runner.run, args=(job_id,)) for job_id in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    expected = [hashlib.sha256(undisturbed(of)[0]).hexdigest() for of in specs]
    ended: list[Any] = [bench.jobs.get(job_id).state for job_id in ids]
    assert [state.parameters_sha256 for state in ended] == expected


def test_a_crash_after_the_model_was_made(bench: Bench) -> None:
    """The last event was not written; the job is run again, and finds its model."""
    pool = GatedPool()
    pool.gate.set()
    job_id = bench.create()
    bench.models.add(
        job_id, task().network, "{}", np.frombuffer(BITS, np.float32), (None, None), bench.jobs.get(job_id).created
    )
    bench.runner(pool).run(job_id)
    state = bench.jobs.get(job_id).state
    assert isinstance(state, Succeeded)
    assert state.parameters_sha256 == bench.models.get(job_id).parameters_sha256


def test_pools_are_left(bench: Bench) -> None:
    """Whatever the end, the workers are ended too."""
    left: list[bool] = []

    @dataclass
    class Watched:
        inner: WorkerPool

        def capacity(self) -> int:
            return self.inner.capacity()

        @contextmanager
        def open(self, task: Task, data: Data, workers: int) -> Iterator[Workers]:
            opened: AbstractContextManager[Workers] = self.inner.open(task, data, workers)
            with opened as made:
                try:
                    yield made
                finally:
                    left.append(True)

    for pool, of in ((LocalPool(), SPEC), (LocalPool(), replace(SPEC, learning_rate=1e30)), (LOSES_ALL, SPEC)):
        bench.run(of, Watched(pool))
    assert left == [True] * 3
