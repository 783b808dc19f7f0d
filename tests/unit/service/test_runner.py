"""A job from its turn to its end: its events durable, whatever is asked of it meanwhile, and whoever dies."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from service.cluster.cluster import Cluster, Room
from service.cluster.local_cluster import LocalCluster
from service.data.datasets import Content, Dataset, Datasets
from service.jobs.events import (
    CheckpointSaved,
    EpochCompleted,
    Event,
    Failed,
    Paused,
    Progress,
    Queued,
    RateAsked,
    Running,
    StateChanged,
    Succeeded,
)
from service.jobs.job import Job
from service.jobs.jobs import Jobs
from service.jobs.scheduler import Scheduler, Share
from service.jobs.spec import JobSpec, Precision
from service.models.registry import Models, parameters_sha256
from service.models.spreading import ask_nobody
from service.training.arrivals import Arrivals, Feed
from service.training.outbox import Posted
from service.training.runner import MOST_RESTARTS, NEWS_SECONDS, SOON_SECONDS, Runner
from service.training.session import Halted, News, Order, Training
from service.training.stopping import EarlyStopping
from service.training.timing import Timing
from service.training.trainer import Policy
from service.wire.job import layers_json, origin
from tests.unit.service.examples import INPUTS, SPEC, TARGETS, jobs_in, spec
from tests.unit.service.stories import EPOCH
from tests.unit.service.training_run import BITS, EPOCHS, undisturbed
from tests.unit.service.unreliable import DyingCluster, GatedCluster
from tests.unit.service.waiting import eventually
from worker.task import Data

DIGEST = parameters_sha256(np.frombuffer(BITS, np.float32))


@dataclass
class Service:
    """All that runs jobs, on one directory."""

    jobs: Jobs
    runner: Runner
    directory: Path
    changed: threading.Event = field(default_factory=threading.Event)

    def create(self, of: JobSpec = SPEC) -> str:
        return self.jobs.create(of, 30, "a job", "").id

    def run(self, job_id: str, share: Share | None = None) -> Job:
        self.runner.run(job_id, share or self.share())
        return self.jobs.get(job_id)

    def share(self, workers: int = 2) -> Share:
        return Share(workers, self.changed.set)

    def states(self, job_id: str) -> list[str]:
        events = [record.event for record in self.jobs.events(job_id, 0, -1)]
        return [event.state.kind for event in events if isinstance(event, StateChanged)]

    def epochs(self, job_id: str) -> list[EpochCompleted]:
        events = [record.event for record in self.jobs.events(job_id, 0, -1)]
        return [replace(event, duration_seconds=0.0) for event in events if isinstance(event, EpochCompleted)]


@contextmanager
def service(directory: Path, cluster: Cluster, checkpoint_seconds: float = 0.0) -> Iterator[Service]:
    datasets = Datasets(directory / "datasets", 1 << 20)
    if not datasets.all():
        np.savez(directory / "flowers.npz", x=INPUTS, y=TARGETS)
        datasets.add("flowers", Content.of(directory / "flowers.npz"), directory / "flowers.npz")
    with jobs_in(directory) as jobs:
        models = Models(directory / "models")
        policy = Policy(checkpoint_seconds, wait_seconds=5.0)
        runner = Runner(jobs, datasets, models, cluster, policy, directory / "checkpoints", layers_json, origin)
        yield Service(jobs, runner, directory)


def assert_well(made: Job, of: Service) -> None:
    """It has the bits of the undisturbed run, each epoch told once, and is the same after a restart."""
    assert isinstance(made.state, Succeeded), made
    assert made.state.parameters_sha256 == DIGEST
    assert of.epochs(made.id) == EPOCHS
    numbers = [record.number for record in of.jobs.events(made.id, 0, -1)]
    assert numbers == list(range(1, made.last_event + 1))
    with jobs_in(of.directory) as restarted:
        assert restarted.get(made.id) == made


def test_a_job_runs_to_its_end(tmp_path: Path) -> None:
    with service(tmp_path, LocalCluster()) as of:
        made = of.run(of.create())
        assert_well(made, of)
        assert of.states(made.id) == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]
        assert made.steps(of.jobs.progress(made.id)) == 12


def test_a_job_that_stops_early_gives_its_best_model_and_says_so(tmp_path: Path) -> None:
    early = spec(learning_rate=0.9, epochs=12, early_stopping=EarlyStopping(2), precision=Precision.FLOAT64)
    _, epochs = undisturbed(replace(early, early_stopping=None))
    with service(tmp_path, LocalCluster()) as of:
        made = of.run(of.create(early))
        state = made.state
        assert isinstance(state, Succeeded)
        bits, _ = undisturbed(replace(early, early_stopping=None, epochs=state.epoch))
        assert state.parameters_sha256 == parameters_sha256(np.frombuffer(bits, np.float64))
        assert (state.validation_loss, state.training_loss) == (
            epochs[state.epoch - 1].validation_loss,
            epochs[state.epoch - 1].training_loss,
        )
        told = of.epochs(made.id)
        assert state.epoch == len(told) - 2 < 10
        assert state.reason.startswith(f"stopped early at epoch {len(told)}: best validation loss")
        assert made.total_steps == made.steps(of.jobs.progress(made.id)) == 4 * len(told)
        with jobs_in(of.directory) as restarted:
            assert restarted.get(made.id) == made


@dataclass
class ScriptedCluster:
    """Its trainer tells what it was told to, all at once, and halts."""

    events: Sequence[Event]
    acknowledged: list[int] = field(default_factory=list)
    timeouts: list[float] = field(default_factory=list)
    steps: Sequence[int] = ()
    """How many it has taken, whenever it is asked; once there is nothing to tell, it goes on telling that."""
    feed: Feed = field(default_factory=Arrivals)

    def room(self) -> Room:
        return LocalCluster().room()

    def want(self, workers: int) -> None:
        """It has what it has."""

    def missing(self) -> str:
        return ""

    help_with = staticmethod(ask_nobody)

    @contextmanager
    def train(self, order: Order, dataset: Dataset, data: Data, workers: int) -> Iterator[Training]:  # noqa: ARG002
        yield self

    def news(self, acknowledged: int, timeout: float) -> News:
        self.acknowledged.append(acknowledged)
        self.timeouts.append(timeout)
        posted = [Posted(number, event) for number, event in enumerate(self.events, 1) if number > acknowledged]
        steps = self.steps[len(self.timeouts) - 1 :]
        progress = Progress(steps[0]) if steps else Progress()
        return News(posted, progress, Timing(), None if posted or len(steps) > 1 else Halted())

    def halt(self) -> None:
        """It ends by itself."""

    def lend(self, workers: int) -> None:
        """It needs none."""

    def ask(self, rate: RateAsked) -> None:
        """Its rate is nobody's matter."""


def test_news_become_durable_in_one_go(tmp_path: Path) -> None:
    """In one transaction: those who watch hear of it once, and all have one time. What is known is left out."""
    told: list[str] = []
    events: list[Event] = [
        EPOCH,
        CheckpointSaved(4),
        StateChanged(Running()),
        EPOCH,
        CheckpointSaved(3),
        CheckpointSaved(5),
    ]
    cluster = ScriptedCluster(events)
    with service(tmp_path, cluster) as of:
        job_id = of.create()
        of.jobs.listen(told.append)
        of.run(job_id)
        records = of.jobs.events(job_id, 0, -1)
    assert [record.event for record in records[2:-1]] == [*events[:3], CheckpointSaved(5)]
    assert len({record.time for record in records[2:-1]}) == 1
    assert len(told) == 3  # that it starts, the news, and that it is queued again
    assert cluster.acknowledged == [0, 6]


def test_until_the_first_step_a_trainer_is_asked_more_often(tmp_path: Path) -> None:
    """For somebody may be waiting for it; once it goes on, asking costs the workers' processors time."""
    cluster = ScriptedCluster([], steps=[0, 0, 3, 700, 900])
    with service(tmp_path, cluster) as of:
        of.run(of.create())
    assert cluster.timeouts == [SOON_SECONDS, SOON_SECONDS, SOON_SECONDS, NEWS_SECONDS, NEWS_SECONDS]
    assert SOON_SECONDS < NEWS_SECONDS


def test_a_job_that_was_paused_in_its_last_moment_in_the_queue_does_not_start(tmp_path: Path) -> None:
    cluster = GatedCluster()
    with service(tmp_path, cluster) as of:
        for end in (of.jobs.pause, of.jobs.cancel):
            job_id = of.create()
            end(job_id)
            before = of.jobs.get(job_id)
            assert of.run(job_id) == before
        assert cluster.lent == []


@contextmanager
def running(of: Service, job_id: str, share: Share | None = None) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=of.run, args=(job_id, share), daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(20)
        assert not thread.is_alive()


def test_a_paused_job_lets_go_and_goes_on_where_it_was(tmp_path: Path) -> None:
    cluster = GatedCluster()
    with service(tmp_path, cluster, checkpoint_seconds=1e9) as of:
        job_id = of.create()
        with running(of, job_id):
            assert cluster.entered.wait(10)
            of.jobs.pause(job_id)
            threading.Timer(0.5, cluster.gate.set).start()
        paused = of.jobs.get(job_id)
        assert (paused.state, paused.checkpoint_step) == (Paused(), 1)
        of.jobs.resume(job_id)
        assert_well(of.run(job_id), of)
        assert of.states(job_id)[-5:] == ["PAUSED", "QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]


def test_paused_and_resumed_at_once_it_begins_again_in_the_queue(tmp_path: Path) -> None:
    cluster = GatedCluster()
    with service(tmp_path, cluster) as of:
        job_id = of.create()
        with running(of, job_id):
            assert cluster.entered.wait(10)
            of.jobs.pause(job_id)
            of.jobs.resume(job_id)
            threading.Timer(0.5, cluster.gate.set).start()
        assert of.jobs.get(job_id).state == Queued()
        assert_well(of.run(job_id), of)


def test_pausing_is_no_loss_however_often(tmp_path: Path) -> None:
    """Each time at the same step."""
    of_job = spec(min_workers=1)
    with service(tmp_path, GatedCluster(), checkpoint_seconds=1e9) as of:
        job_id = of.create(of_job)
    for _ in range(2 * MOST_RESTARTS):
        cluster = GatedCluster()
        with service(tmp_path, cluster) as of:
            with running(of, job_id):
                assert cluster.entered.wait(10)
                of.jobs.pause(job_id)
                threading.Timer(0.3, cluster.gate.set).start()
            assert of.jobs.get(job_id).state == Paused()
            of.jobs.resume(job_id)
    with service(tmp_path, LocalCluster()) as of:
        assert_well(of.run(job_id), of)


def test_a_cancelled_job_stays_cancelled_whatever_its_trainer_tells(tmp_path: Path) -> None:
    cluster = GatedCluster()
    with service(tmp_path, cluster) as of:
        job_id = of.create()
        with running(of, job_id):
            assert cluster.entered.wait(10)
            cancelled = of.jobs.cancel(job_id)
            cluster.gate.set()
        assert of.jobs.get(job_id) == cancelled
        of.jobs.delete(job_id)
        eventually(lambda: not (tmp_path / "checkpoints" / job_id).exists())


def test_requests_in_quick_succession_end_in_what_the_last_one_asked(tmp_path: Path) -> None:
    """From several threads, while the scheduler starts it again and again."""
    with service(tmp_path, LocalCluster()) as of:
        scheduler = Scheduler(of.jobs, lambda: 4, of.runner.run)
        scheduler.start()
        ids = [of.create(spec(epochs=400)) for _ in range(2)]

        def ask(seed: int) -> None:
            random = np.random.default_rng(seed)
            for _ in range(25):
                call = (of.jobs.pause, of.jobs.resume)[int(random.integers(2))]
                try:
                    call(ids[int(random.integers(2))])
                except Exception as error:
                    assert type(error).__name__ == "FailedPrecondition"  # noqa: PT017
                threading.Event().wait(float(random.random() / 50))

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for job_id, last in zip(ids, (of.jobs.cancel, of.jobs.pause), strict=True):
            if not isinstance(of.jobs.get(job_id).state, Paused):
                last(job_id)
            elif last == of.jobs.cancel:
                of.jobs.cancel(job_id)
        scheduler.stop(20)
        assert [of.jobs.get(job_id).state.kind for job_id in ids] == ["CANCELLED", "PAUSED"]
        for job_id in ids:
            numbers = [epoch.epoch for epoch in of.epochs(job_id)]
            assert numbers == list(range(1, len(numbers) + 1))


def run_until_it_ends(of: Service, job_id: str) -> Job:
    made = of.run(job_id)
    for _ in range(50):
        if made.has_ended:
            break
        assert isinstance(made.state, Queued)
        assert made.state.reason == "its trainer was lost"
        made = of.run(job_id)
    return made


@pytest.mark.parametrize("checkpoint_seconds", [0.0, 1e9])
@pytest.mark.parametrize("steps", [(3,), (0, 5, 1), (2, 2, 2, 2, 2)])
def test_a_lost_trainer_is_started_again(tmp_path: Path, steps: Sequence[int], checkpoint_seconds: float) -> None:
    with service(tmp_path, DyingCluster(steps), checkpoint_seconds) as of:
        assert_well(run_until_it_ends(of, of.create()), of)


def test_a_trainer_that_is_lost_again_and_again_ends_the_job(tmp_path: Path) -> None:
    """Unless it gets further meanwhile."""
    with service(tmp_path, DyingCluster([0] * 99)) as of:
        made = run_until_it_ends(of, of.create())
        assert made.state == Failed(
            "TRAINER_LOST", f"the job's trainer was lost {MOST_RESTARTS + 1} times after step 0"
        )
        assert of.states(made.id).count("STARTING") == MOST_RESTARTS + 1
    with service(tmp_path, DyingCluster([1] * 11)) as of:
        assert_well(run_until_it_ends(of, of.create()), of)


def test_a_service_that_stops_leaves_its_jobs_in_the_queue(tmp_path: Path) -> None:
    cluster = GatedCluster()
    with service(tmp_path, cluster, checkpoint_seconds=1e9) as of:
        job_id = of.create()
        with running(of, job_id):
            assert cluster.entered.wait(10)
            of.runner.stop()
            threading.Timer(0.4, cluster.gate.set).start()
        stopped = of.jobs.get(job_id)
        assert stopped.state == Queued("goes on when the coordinator, which was stopped, starts again")
        assert stopped.checkpoint_step == 1
    with service(tmp_path, LocalCluster()) as of:
        assert_well(of.run(job_id), of)


def test_its_workers_follow_what_the_scheduler_wants(tmp_path: Path) -> None:
    """Also what it wanted while the trainer was being started."""
    cluster = GatedCluster()
    with service(tmp_path, cluster) as of:
        share = of.share(2)
        job_id = of.create(spec(max_workers=3))
        of.jobs.listen(lambda _: setattr(share, "target", max(share.target, 3)) if len(cluster.lent) == 1 else None)
        with running(of, job_id, share):
            eventually(lambda: share.held == 3)
            share.target = 1
            eventually(lambda: share.held == 1)
            cluster.gate.set()
        assert cluster.lent == [2, 3, 1]


def test_a_dataset_that_is_gone_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    with service(tmp_path, LocalCluster()) as of:
        made = of.run(of.create(spec(dataset="nothing")))
        assert made.state == Failed("DATASET_NOT_FOUND", "there is no dataset datasets/nothing")
