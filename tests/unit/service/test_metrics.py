"""What Prometheus scrapes, read as it reads it."""

import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from service.jobs.job import STATES, EpochCompleted, Event, Progress, Running, Starting, StateChanged, WorkerLost
from service.jobs.jobs import Jobs
from service.jobs.store import JobStore
from service.metrics import JobMetrics, PredictionMetrics, metrics_endpoint
from service.models.usage import Usage
from service.training.timing import BUCKETS, NOW_AND_THEN, PHASES, Timing
from service.wire.job import spec_text
from tests.unit.service.examples import SPEC
from tests.unit.service.stories import FAILED, SUCCEEDED, WAITING
from tests.unit.service.test_loaded import BYTES, loading, made

RETENTION = 100.0
EPOCH = EpochCompleted(1, 4, 0.5, 0.7, 0.6, 0.8, 0.05, 1.5, validation_scores={"accuracy": 0.8, "f1": 0.75})
UNDER_WAY = (StateChanged(Starting()), StateChanged(Running()))

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Scraped:
    """One scrape's families and samples."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples: Samples = {
            (sample.name.removeprefix("chainrule_"), tuple(sorted(sample.labels.items()))): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        return self.samples.get((name, tuple(sorted(labels.items()))))

    def jobs(self) -> set[str]:
        """The jobs that have any series."""
        return {value for _, labels in self.samples for label, value in labels if label == "job_id"}


class Fleet:
    """Jobs and what a scrape of them says."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self.timings: dict[str, Timing] = {}
        self.collector = JobMetrics(jobs, self.timings.get, lambda: 4, RETENTION)

    def job(self, *events: Event, progress: Progress | None = None) -> str:
        made = self.jobs.create(SPEC, 30, "", "")
        for event in events:
            self.jobs.record(made.id, event)
        if progress:
            self.jobs.set_progress(made.id, progress)
        return made.id

    def scrape(self) -> Scraped:
        registry = CollectorRegistry()
        registry.register(self.collector)
        return Scraped(generate_latest(registry).decode())


class Clock:
    """Says what it is told, or else the time."""

    ago = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) - self.ago


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fleet(tmp_path: Path, clock: Clock) -> Iterator[Fleet]:
    with closing(JobStore(tmp_path / "jobs.sqlite", spec_text())) as store:
        yield Fleet(Jobs(store, clock))


def test_with_nothing_to_do(fleet: Fleet) -> None:
    scraped = fleet.scrape()
    assert [scraped.value("jobs", state=state.lower()) for state in STATES] == [0] * len(STATES)
    assert [scraped.value("workers", state=state) for state in ("free", "busy", "lost")] == [4, 0, 0]
    assert scraped.jobs() == set()


def test_names_follow_the_rules(fleet: Fleet) -> None:
    fleet.timings[fleet.job(*UNDER_WAY, EPOCH, progress=Progress(6, 0.4, 10, 2))] = Timing()
    for name, family in fleet.scrape().families.items():
        assert name.startswith("chainrule_")
        assert family.documentation.endswith(".")
        assert family.type in ("gauge", "counter", "histogram")
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter")
            assert "job" not in sample.labels


def test_a_job_that_runs(fleet: Fleet) -> None:
    job = fleet.job(*UNDER_WAY, EPOCH, WorkerLost(0, 5, "gone"), progress=Progress(6, 0.4, 10, 2))
    scraped = fleet.scrape()
    values = {
        "training_loss": 0.4,
        "validation_loss": 0.6,
        "validation_accuracy_ratio": 0.8,
        "learning_rate": 0.05,
        "job_workers": 2,
        "steps_total": 6,
        "samples_total": 24 + 14,
        "epochs_total": 1,
        "worker_failures_total": 1,
    }
    assert {name: scraped.value(name, job_id=job) for name in values} == values
    assert scraped.value("validation_score", job_id=job, score="f1") == 0.75
    assert scraped.value("validation_score", job_id=job, score="accuracy") == 0.8
    assert scraped.value("jobs", state="running") == 1
    assert [scraped.value("workers", state=state) for state in ("free", "busy", "lost")] == [2, 2, 0]


def test_what_a_job_does_not_have_yet_has_no_series(fleet: Fleet) -> None:
    job = fleet.job(*UNDER_WAY)
    scraped = fleet.scrape()
    for name in ("training_loss", "validation_loss", "validation_accuracy_ratio"):
        assert scraped.value(name, job_id=job) is None
    assert scraped.value("steps_total", job_id=job) == 0
    queued = fleet.job()
    assert queued not in fleet.scrape().jobs()


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
    fleet: Fleet, events: tuple[Event, ...], progress: Progress | None, free: int, busy: int, lost: int
) -> None:
    made = fleet.job(*UNDER_WAY)
    fleet.jobs.set_progress(made, progress or Progress())
    for event in events[len(UNDER_WAY) :]:
        fleet.jobs.record(made, event)
    scraped = fleet.scrape()
    assert [scraped.value("workers", state=state) for state in ("free", "busy", "lost")] == [free, busy, lost]
    assert scraped.value("job_workers", job_id=made) == busy


def test_time_by_phase(fleet: Fleet) -> None:
    job = fleet.job(*UNDER_WAY)
    timing = fleet.timings[job] = Timing()
    for _ in range(3):
        with timing.phase("gather"):
            pass
    name = "step_phase_seconds"
    scraped = fleet.scrape()
    buckets = [
        scraped.value(f"{name}_bucket", job_id=job, phase="gather", le=le) for le in (*map(str, BUCKETS), "+Inf")
    ]
    assert None not in buckets
    assert buckets == sorted(buckets, key=lambda count: count or 0)
    assert buckets[-1] == scraped.value(f"{name}_count", job_id=job, phase="gather") == 3
    assert scraped.value(f"{name}_sum", job_id=job, phase="gather") == pytest.approx(timing.seconds["gather"])
    counted = {phase: scraped.value(f"{name}_count", job_id=job, phase=phase) for phase in (*PHASES, *NOW_AND_THEN)}
    assert counted == {**dict.fromkeys(PHASES, 0), **dict.fromkeys(NOW_AND_THEN, 0), "gather": 3}


def test_a_jobs_series_vanish_with_it(fleet: Fleet) -> None:
    gone, kept = (fleet.job(*UNDER_WAY, EPOCH, StateChanged(FAILED)) for _ in range(2))
    assert fleet.scrape().jobs() == {gone, kept}
    fleet.jobs.delete(gone)
    assert fleet.scrape().jobs() == {kept}
    assert fleet.scrape().value("jobs", state="failed") == 1


def test_a_jobs_series_vanish_some_time_after_its_end(fleet: Fleet, clock: Clock) -> None:
    clock.ago = timedelta(seconds=RETENTION + 1)
    long_ago = fleet.job(*UNDER_WAY, StateChanged(SUCCEEDED))
    still_going = fleet.job(*UNDER_WAY)
    clock.ago = timedelta(seconds=RETENTION - 50)
    just_now = fleet.job(*UNDER_WAY, StateChanged(SUCCEEDED))
    scraped = fleet.scrape()
    assert scraped.jobs() == {still_going, just_now}
    assert long_ago not in scraped.jobs()
    assert scraped.value("jobs", state="succeeded") == 2


def test_counters_never_go_back(fleet: Fleet) -> None:
    """Whatever of the steps is known live, or from events after a restart."""
    job = fleet.job(*UNDER_WAY, progress=Progress(3, 0.4, 10, 2))
    seen = [fleet.scrape().value("steps_total", job_id=job)]
    for event in (EPOCH, replace(EPOCH, epoch=2, step=8)):
        fleet.jobs.record(job, event)
        seen.append(fleet.scrape().value("steps_total", job_id=job))
    assert seen == [3, 4, 8]


def test_it_is_served(fleet: Fleet) -> None:
    job = fleet.job(*UNDER_WAY, EPOCH)
    with metrics_endpoint("127.0.0.1", 0, fleet.collector) as port:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
            assert Scraped(response.read().decode()).jobs() == {job}
        with pytest.raises(OSError, match="in use"), metrics_endpoint("127.0.0.1", port, fleet.collector):
            pass


def test_predictions(tmp_path: Path) -> None:
    """Counted by outcome; the histogram is of all requests."""
    usage, loaded = Usage(), loading(made(tmp_path, "a"), 1)
    loaded.load("a")
    for outcome, seconds, rows in (("answered", 0.002, 10), ("answered", 20.0, 5), ("refused", 0.0001, 0)):
        usage.count(outcome, seconds, rows)
    registry = CollectorRegistry()
    registry.register(PredictionMetrics(usage, loaded))
    scraped = Scraped(generate_latest(registry).decode())
    counted = [scraped.value("predictions_total", outcome=outcome) for outcome in ("answered", "refused", "failed")]
    assert counted == [2, 1, 0]
    assert scraped.value("prediction_rows_total") == 15
    buckets = [scraped.value("prediction_seconds_bucket", le=le) for le in ("0.0005", "0.0025", "10.0", "+Inf")]
    assert buckets == [1, 2, 2, 3]
    assert scraped.value("prediction_seconds_sum") == pytest.approx(20.0021)
    names = ("model_cache_bytes", "model_cache_models", "model_loads_total")
    assert [scraped.value(name) for name in names] == [BYTES, 1, 1]
