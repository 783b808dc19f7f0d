"""What Prometheus scrapes of jobs and of the service, read as it reads it."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from benchmarks.scrape_cost import Setting, measure
from service.cluster.workers import CAUSES
from service.data.datasets import Content, Datasets
from service.jobs.events import STATES, EpochCompleted, Event, Paused, Progress, Running, Starting, StateChanged
from service.jobs.health import Diagnosed, HealthSampled, LayerHealth, Recovered, Trouble
from service.jobs.job import Job
from service.jobs.jobs import Jobs
from service.jobs.scheduler import Scheduler, plan
from service.jobs.store import JobStore
from service.metrics import jobs as of_jobs
from service.metrics.fleet import Fleet, FleetMetrics
from service.metrics.jobs import JobMetrics
from service.metrics.layers import MOST_LAYERS
from service.metrics.shown import MOST_WORKERS
from service.models.registry import Models
from service.training.timing import BUCKETS, NOW_AND_THEN, PHASES, RECOVERY_BUCKETS, Timing
from service.wire.job import spec_text
from tests.unit.service.examples import SPEC, spec
from tests.unit.service.scraping import Scraped
from tests.unit.service.stories import DEAD, FAILED, HEALTH, OVERFITTED, ROLLED_BACK, SUCCEEDED, WAITING
from tests.unit.service.test_loaded import made
from tests.unit.service.test_registry import add

RETENTION = 100.0
VALIDATION = {"accuracy": 0.8, "f1": 0.75}
EPOCH = EpochCompleted(1, 4, 0.5, 0.7, 0.6, 0.8, 0.05, 1.5, 0, {"accuracy": 0.7}, VALIDATION)
UNDER_WAY = (StateChanged(Starting()), StateChanged(Running()))
PROGRESS = Progress(6, 0.4, 10.0, 2, 1)


class Clock:
    """Says what it is told, or else the time."""

    ago = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) - self.ago


class Service:
    """Jobs, and what a scrape of them and of all the rest says."""

    def __init__(self, jobs: Jobs, directory: Path) -> None:
        self.jobs = jobs
        self.timings: dict[str, Timing] = {}
        self.scheduler = Scheduler(jobs, lambda: 4, lambda *_: None)
        self.scheduler.capacity = 4
        self.datasets = Datasets(directory / "datasets", 10**6)
        self.models = made(directory / "models")
        fleet = Fleet(jobs, self.scheduler, self.datasets, self.models, directory)
        self._metrics = (FleetMetrics(fleet), JobMetrics(jobs, self.timings.get, RETENTION))

    def job(self, *events: Event, progress: Progress | None = None, name: str = "") -> str:
        made = self.jobs.create(SPEC, 30, name, "")
        for event in events:
            self.jobs.record(made.id, event)
        if progress:
            self.jobs.set_progress(made.id, progress)
        return made.id

    def scrape(self) -> Scraped:
        return Scraped("".join(metrics.text() for metrics in self._metrics))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(tmp_path: Path, clock: Clock) -> Iterator[Service]:
    with closing(JobStore(tmp_path / "jobs.sqlite", spec_text())) as store:
        yield Service(Jobs(store, clock), tmp_path)


def test_with_nothing_to_do(service: Service) -> None:
    scraped = service.scrape()
    assert [scraped.value("jobs", state=state.lower()) for state in STATES] == [0] * len(STATES)
    assert [scraped.value("workers", state=state) for state in ("free", "busy", "lost")] == [4, 0, 0]
    assert scraped.jobs() == set()


def test_names_follow_the_rules(service: Service) -> None:
    service.timings[service.job(*UNDER_WAY, EPOCH, HEALTH, progress=PROGRESS)] = Timing()
    for name, family in service.scrape().families.items():
        assert name.startswith("chainrule_")
        assert family.documentation.endswith(".")
        assert family.type in ("gauge", "counter", "histogram")
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter")
            assert "job" not in sample.labels


# Jobs


def test_a_job_that_runs(service: Service) -> None:
    job = service.job(*UNDER_WAY, ROLLED_BACK, EPOCH, progress=PROGRESS, name='a "b"\\c')
    scraped = service.scrape()
    values = {
        "training_loss": 0.4,
        "validation_loss": 0.6,
        "validation_accuracy_ratio": 0.8,
        "learning_rate": 0.005,
        "job_workers": 2,
        "steps_total": 6,
        "steps_expected": 12,
        "samples_total": 24 + 14,
        "epochs_total": 1,
        "rollbacks_total": 1,
        "remaining_seconds": (24 - 14 + 24) / 10.0,
    }
    assert {name: scraped.value(name, job_id=job) for name in values} == pytest.approx(values)
    assert scraped.value("validation_score", job_id=job, score="f1") == 0.75
    assert scraped.value("validation_score", job_id=job, score="accuracy") == 0.8
    assert scraped.value("training_score", job_id=job, score="accuracy") == 0.7
    assert scraped.value("training_score", job_id=job, score="f1") is None
    assert scraped.value("job_info", job_id=job, display_name='a "b"\\c', state="running") == 1
    assert [scraped.value("exchange_workers", job_id=job, exchange=e) for e in ("shared_memory", "ray_objects")] == [
        1,
        1,
    ]
    assert scraped.value("jobs", state="running") == 1
    assert [scraped.value("workers", state=state) for state in ("free", "busy", "lost")] == [2, 2, 0]


def test_what_a_job_does_not_have_yet_has_no_series(service: Service) -> None:
    job = service.job(*UNDER_WAY)
    scraped = service.scrape()
    for name in ("training_loss", "validation_loss", "validation_accuracy_ratio", "gradient_norm", "remaining_seconds"):
        assert scraped.value(name, job_id=job) is None
    assert scraped.value("steps_total", job_id=job) == 0
    queued = service.job()
    assert queued not in service.scrape().jobs()


def test_what_may_go_wrong_is_0_from_the_start(service: Service) -> None:
    """Or the first time that it does could not be told from a series that is new."""
    job = service.job(*UNDER_WAY)
    scraped = service.scrape()
    for trouble in Trouble:
        assert scraped.value("diagnosis", job_id=job, diagnosis=trouble.lower()) == 0
    for cause in CAUSES:
        assert scraped.value("worker_failures_total", job_id=job, cause=cause) == 0
    assert scraped.value("rollbacks_total", job_id=job) == 0


def test_diagnoses_come_and_go(service: Service) -> None:
    def wrong() -> set[Trouble]:
        scraped = service.scrape()
        return {t for t in Trouble if scraped.value("diagnosis", job_id=job, diagnosis=t.lower())}

    job = service.job(*UNDER_WAY, Diagnosed(OVERFITTED), Diagnosed(DEAD))
    assert wrong() == {Trouble.OVERFITTING, Trouble.DEAD_UNITS}
    service.jobs.record(job, Recovered(Trouble.OVERFITTING, 8))
    assert wrong() == {Trouble.DEAD_UNITS}


def test_workers_that_were_lost_by_cause(service: Service) -> None:
    job = service.job(*UNDER_WAY)
    timing = service.timings[job] = Timing()
    timing.losses["too_slow"] += 2
    timing.recoveries.add(0.3)
    timing.recoveries.add(400.0)
    scraped = service.scrape()
    assert scraped.value("worker_failures_total", job_id=job, cause="too_slow") == 2
    assert scraped.value("worker_failures_total", job_id=job, cause="process_ended") == 0
    within = [scraped.value("recovery_seconds_bucket", job_id=job, le=str(le)) for le in (*RECOVERY_BUCKETS, "+Inf")]
    assert within == [0, 0, *[1] * (len(RECOVERY_BUCKETS) - 2), 2]


def test_what_workers_compute_and_exchange(service: Service) -> None:
    job = service.job(*UNDER_WAY)
    timing = service.timings[job] = Timing()
    timing.compute_seconds = {number: 0.5 * number for number in range(MOST_WORKERS + 10)}
    timing.exchanged_bytes = 123_456_789_012
    scraped = service.scrape()
    assert scraped.value("worker_compute_seconds_total", job_id=job, worker="3") == 1.5
    assert len(scraped.having("worker")["worker_compute_seconds_total"]) == MOST_WORKERS
    assert scraped.value("exchange_bytes_total", job_id=job) == 123_456_789_012


def test_the_time_of_steps_and_their_phases(service: Service) -> None:
    job = service.job(*UNDER_WAY)
    timing = service.timings[job] = Timing()
    for seconds in (0.0001, 0.002, 0.002, 77.0):
        timing.phases["gather"].add(seconds)
        timing.steps.add(2 * seconds)
    scraped = service.scrape()
    bounds = [*map(str, BUCKETS), "+Inf"]
    buckets = [scraped.value("step_phase_seconds_bucket", job_id=job, phase="gather", le=le) for le in bounds]
    assert buckets == [sum(s <= float(le) for s in (0.0001, 0.002, 0.002, 77.0)) for le in bounds]
    assert scraped.value("step_phase_seconds_count", job_id=job, phase="gather") == 4
    assert scraped.value("step_phase_seconds_sum", job_id=job, phase="gather") == pytest.approx(77.0041)
    assert scraped.value("step_seconds_count", job_id=job) == 4
    assert scraped.value("step_seconds_sum", job_id=job) == pytest.approx(154.0082)
    assert scraped.having("phase")["step_phase_seconds_sum"] == {*PHASES, *NOW_AND_THEN}


@pytest.mark.parametrize(("saved", "age"), [(30.0, 30.0), (None, 60.0)], ids=["saved", "never saved"])
def test_the_age_of_a_checkpoint(saved: float | None, age: float, service: Service, clock: Clock) -> None:
    """What would be lost: since the last one, or else since the job began to run."""
    clock.ago = timedelta(seconds=60)
    job = service.job(*UNDER_WAY)
    timing = service.timings[job] = Timing()
    if saved:
        timing.checkpoint_time, timing.checkpoint_bytes = datetime.now(UTC).timestamp() - saved, 1234
    scraped = service.scrape()
    assert scraped.value("checkpoint_age_seconds", job_id=job) == pytest.approx(age, abs=5.0)
    assert scraped.value("checkpoint_bytes", job_id=job) == (1234 if saved else None)
    service.jobs.record(job, StateChanged(SUCCEEDED))
    assert service.scrape().value("checkpoint_age_seconds", job_id=job) is None


# Layers


def test_the_health_of_layers(service: Service) -> None:
    job = service.job(*UNDER_WAY, HEALTH)
    scraped = service.scrape()
    assert scraped.value("gradient_norm", job_id=job) == HEALTH.gradient_norm
    assert scraped.value("straggler_ratio", job_id=job) == 1.25
    of_first = {
        "layer_gradient_norm": 0.5,
        "layer_parameter_norm": 2.0,
        "layer_update_ratio": 0.001,
        "layer_dead_ratio": None,
        "layer_saturated_ratio": None,
        "layer_output_mean": 0.25,
        "layer_output_deviation": 1.5,
    }
    assert {name: scraped.value(name, job_id=job, layer="layers.0") for name in of_first} == of_first
    assert scraped.value("layer_dead_ratio", job_id=job, layer="a") == 0.25


def test_the_newest_look_counts(service: Service) -> None:
    """Not every one becomes an event."""
    job = service.job(*UNDER_WAY, HEALTH, progress=replace(PROGRESS, health=replace(HEALTH, step=6, gradient_norm=9.0)))
    assert service.scrape().value("gradient_norm", job_id=job) == 9.0


def test_of_a_deep_network_the_first_layers_are_shown(service: Service) -> None:
    layers = tuple(LayerHealth(f"layers.{n}", "dense", 0.0, 1.0, 0.5) for n in range(MOST_LAYERS + 10))
    job = service.job(*UNDER_WAY, HealthSampled(4, 0.5, layers))
    scraped = service.scrape()
    assert scraped.having("layer")["layer_gradient_norm"] == {layer.layer for layer in layers[:MOST_LAYERS]}
    assert scraped.jobs() == {job}


# Which jobs are shown


def test_a_jobs_series_vanish_with_it(service: Service) -> None:
    gone, kept = (service.job(*UNDER_WAY, EPOCH, StateChanged(FAILED)) for _ in range(2))
    assert service.scrape().jobs() == {gone, kept}
    service.jobs.delete(gone)
    assert service.scrape().jobs() == {kept}
    assert service.scrape().value("jobs", state="failed") == 1


def test_a_jobs_series_vanish_some_time_after_its_end(service: Service, clock: Clock) -> None:
    clock.ago = timedelta(seconds=RETENTION + 1)
    long_ago = service.job(*UNDER_WAY, StateChanged(SUCCEEDED))
    still_going = service.job(*UNDER_WAY)
    clock.ago = timedelta(seconds=RETENTION - 50)
    just_now = service.job(*UNDER_WAY, StateChanged(SUCCEEDED))
    scraped = service.scrape()
    assert scraped.jobs() == {still_going, just_now}
    assert long_ago not in scraped.jobs()
    assert scraped.value("jobs", state="succeeded") == 2


def test_of_very_many_jobs_some_are_shown(tmp_path: Path) -> None:
    """Those at work first, then those that ended last."""
    now = datetime.now(UTC)
    at_work, ended = [], []
    for number in range(of_jobs.MOST_JOBS):
        job = Job(f"job{number}", "", SPEC, 30, now, started=now)
        at_work += [replace(job, state=Running(), since=now - timedelta(hours=1))] if number % 4 == 0 else []
        end = now - timedelta(seconds=number / 10)
        ended.append(replace(job, id=f"ended{number}", state=SUCCEEDED, since=end, ended=end))

    class Many(Jobs):
        def all(self) -> list[Job]:
            return [*ended, *at_work]

    with closing(JobStore(tmp_path / "jobs.sqlite", spec_text())) as store:
        shown = Scraped(JobMetrics(Many(store), lambda _: None, RETENTION).text()).jobs()
    newest = [job.id for job in ended[: of_jobs.MOST_JOBS - len(at_work)]]
    assert shown == {*newest, *(job.id for job in at_work)}


def test_counters_never_go_back(service: Service) -> None:
    """Whatever of the steps is known live, or from events after a restart."""
    job = service.job(*UNDER_WAY, progress=Progress(3, 0.4, 10, 2))
    seen = [service.scrape().value("steps_total", job_id=job)]
    for event in (EPOCH, replace(EPOCH, epoch=2, step=8)):
        service.jobs.record(job, event)
        seen.append(service.scrape().value("steps_total", job_id=job))
    assert seen == [3, 4, 8]


@pytest.mark.parametrize(
    ("setting", "most"),
    [
        (Setting(jobs=1), 300),
        (Setting(jobs=10), 3_000),
        (Setting(jobs=1, layers=1_000, workers=500), 800),
    ],
    ids=["a job", "ten jobs", "a job that is as large as it gets"],
)
def test_the_number_of_series_is_bounded(setting: Setting, most: int) -> None:
    besides = measure(Setting(jobs=0, rounds=1)).series
    assert besides <= 1_500
    assert measure(replace(setting, rounds=1)).series - besides <= most


# The service


@pytest.mark.parametrize(
    ("events", "progress", "free", "busy", "lost"),
    [
        (UNDER_WAY, Progress(6, 0.4, 10, 1), 2, 1, 1),
        ((*UNDER_WAY, StateChanged(WAITING)), Progress(6, 0.4, 10, 1), 2, 0, 2),
        ((*UNDER_WAY, StateChanged(SUCCEEDED)), Progress(12, 0.4, 10, 2), 4, 0, 0),
        (UNDER_WAY, None, 4, 0, 0),
    ],
    ids=["one lost", "all lost", "ended", "before the first step"],
)
def test_workers_by_state(
    service: Service, events: tuple[Event, ...], progress: Progress | None, free: int, busy: int, lost: int
) -> None:
    made = service.job(*UNDER_WAY)
    service.jobs.set_progress(made, progress or Progress())
    for event in events[len(UNDER_WAY) :]:
        service.jobs.record(made, event)
    scraped = service.scrape()
    assert [scraped.value("workers", state=state) for state in ("free", "busy", "lost")] == [free, busy, lost]
    assert scraped.value("job_workers", job_id=made) == busy


def test_the_queue(service: Service, clock: Clock) -> None:
    """The longest wait for each thing; what nobody waits for is 0."""
    wanted = {400: 9, 300: 3, 200: 1, 100: 2}
    for ago, workers in wanted.items():
        clock.ago = timedelta(seconds=ago)
        service.jobs.create(spec(workers=workers, min_workers=workers), 30, "", "")
    clock.ago = timedelta(seconds=50)
    service.job(StateChanged(Paused()))
    queued = [job for job in service.jobs.all() if job.state.kind == "QUEUED"]
    service.scheduler.waits = plan(queued, [], {"another": 2}, 4, datetime.now(UTC)).waits
    scraped = service.scrape()
    waits = {
        reason: scraped.value("queue_wait_seconds", reason=reason) for reason in ("capacity", "workers", "priority")
    }
    assert waits == pytest.approx({"capacity": 400, "workers": 300, "priority": 200}, abs=5.0)
    assert scraped.value("queue_wait_seconds", reason="paused") == pytest.approx(50, abs=5.0)
    assert scraped.value("queue_jobs") == len(wanted)
    service.scheduler.waits = {}
    scraped = service.scrape()
    assert [scraped.value("queue_wait_seconds", reason=r) for r in ("capacity", "workers", "priority")] == [0, 0, 0]


def test_what_is_kept(service: Service, tmp_path: Path) -> None:
    np.savez(file := tmp_path / "points.npz", x=np.zeros((10, 3), np.float32), y=np.zeros(10, np.int64))
    kept = [service.datasets.add(name, Content.of(file), file) for name in ("a", "b")]
    models = [add(service.models, name) for name in ("m", "n")]
    scraped = service.scrape()
    assert scraped.value("models") == 2
    assert scraped.value("model_bytes") == sum(model.size_bytes for model in models)
    assert scraped.value("datasets") == 2
    assert scraped.value("dataset_bytes") == sum(dataset.stored_bytes for dataset in kept) == 2 * 10 * (3 * 4 + 8)
    service.datasets.delete("a")
    service.models.delete("m")
    assert [service.scrape().value(name) for name in ("datasets", "models")] == [1, 1]
    assert Models(tmp_path / "models").count == 1
    free, size = scraped.value("disk_free_bytes"), scraped.value("disk_size_bytes")
    assert free is not None
    assert size is not None
    assert 0 < free < size
    assert scraped.having("version").keys() == {"build_info"}
