"""What a scrape costs while many jobs run, and how many series it brings.

The jobs are made up, the rest is real: the coordinator's own metrics, over HTTP and in gzip, as Prometheus asks.

    python -m benchmarks.scrape_cost
"""

import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from service.api.calls import Calls
from service.api.server import SERVICES
from service.data.datasets import Datasets
from service.jobs.events import EpochCompleted, Progress, Running, Starting, StateChanged
from service.jobs.health import HealthSampled, LayerHealth
from service.jobs.jobs import Jobs
from service.jobs.scheduler import Scheduler
from service.jobs.spec import JobSpec
from service.jobs.store import JobStore
from service.metrics.calls import CallMetrics
from service.metrics.endpoint import BURST_SECONDS, SHARE, metrics_endpoint
from service.metrics.fleet import Fleet, FleetMetrics
from service.metrics.jobs import JobMetrics
from service.metrics.process import ProcessMetrics
from service.models.registry import Models
from service.training.optimizers import Adam
from service.training.timing import Timing
from service.wire.job import spec_text
from worker.layers import Dense, ReLU
from worker.losses import SoftmaxCrossEntropy


@dataclass(frozen=True)
class Setting:
    """What is scraped."""

    jobs: int = 100
    layers: int = 20
    workers: int = 4
    rounds: int = 20


@dataclass(frozen=True)
class Cost:
    """What a scrape came to."""

    seconds: float
    """From the request to the last byte, the median."""
    series: int
    bytes: int
    packed_bytes: int


@contextmanager
def running(setting: Setting, directory: Path) -> Iterator[str]:
    """The address of a coordinator's metrics, with jobs that are under way."""
    with closing(JobStore(directory / "jobs.sqlite", spec_text())) as store:
        jobs, timings = Jobs(store), dict[str, Timing]()
        for number in range(setting.jobs):
            timings[_begin(jobs, number, setting)] = _timing(setting)
        scheduler = Scheduler(jobs, lambda: 0, lambda *_: None)
        datasets, models = Datasets(directory / "datasets", 1), Models(directory / "models")
        sources = (
            FleetMetrics(Fleet(jobs, scheduler, datasets, models, directory)),
            JobMetrics(jobs, timings.get, 3600.0),
            CallMetrics(Calls(SERVICES)),
            ProcessMetrics(),
        )
        with metrics_endpoint("127.0.0.1", 0, *(source.text for source in sources)) as port:
            yield f"http://127.0.0.1:{port}/metrics"


def measure(setting: Setting) -> Cost:
    """Scrapes, as often as leaves the coordinator time to make each page anew."""
    seconds = []
    with TemporaryDirectory() as directory, running(setting, Path(directory)) as url:
        text = _get(url)
        for _ in range(setting.rounds):
            began = time.perf_counter()
            packed = _get(url, "gzip")
            seconds.append(time.perf_counter() - began)
            time.sleep(min(seconds[-1] / SHARE, BURST_SECONDS))
    lines = text.splitlines()
    return Cost(median(seconds), sum(not line.startswith(b"#") for line in lines), len(text), len(packed))


def _begin(jobs: Jobs, number: int, setting: Setting) -> str:
    pairs = setting.layers // 2
    spec = JobSpec(
        dataset="points",
        input_column="x",
        target_column="y",
        validation_fraction=0.2,
        layers=(Dense(64), ReLU()) * pairs,
        loss=SoftmaxCrossEntropy(),
        optimizer=Adam(),
        learning_rate=0.001,
        epochs=10,
        batch_size=64,
        shards=setting.workers,
        workers=setting.workers,
        seed=number,
        shuffle_window=0,
    )
    job = jobs.create(spec, 10_000, f"job {number}", "")
    scores = {"accuracy": 0.8125, "top_5_accuracy": 0.9375, "f1": 0.78125}
    epoch = EpochCompleted(1, 125, 0.512345, 0.8, 0.612345, 0.8125, 0.001, 1.5, validation_scores=scores)
    jobs.record(job.id, StateChanged(Starting()), StateChanged(Running()), epoch)
    norms = (1 / 3, 2 / 3, 0.001 / 3)
    layers = [
        LayerHealth(f"layers.{place}", "dense", 1 / 7, 8 / 7, *norms)
        if place % 2 == 0
        else LayerHealth(f"layers.{place}", "relu", 1 / 7, 8 / 7, dead_ratio=1 / 64)
        for place in range(2 * pairs)
    ]
    health = HealthSampled(150, 1 / 3, tuple(layers), 1.25)
    jobs.set_progress(job.id, Progress(150, 1 / 3, 12345.6789, setting.workers, setting.workers, 0.001, health))
    return job.id


def _timing(setting: Setting) -> Timing:
    timing = Timing()
    for histogram in (timing.steps, timing.recoveries, *timing.phases.values()):
        for place in range(150):
            histogram.add(0.0001 * (place + 1 / 3))
    timing.compute_seconds = {number: 12.345678 + number for number in range(setting.workers)}
    timing.exchanged_bytes = 123_456_789
    timing.checkpoint_time, timing.checkpoint_bytes = time.time(), 1_234_567
    return timing


def _get(url: str, encoding: str = "identity") -> bytes:
    request = urllib.request.Request(url, headers={"Accept-Encoding": encoding})  # noqa: S310 - our own address
    with urllib.request.urlopen(request, timeout=10.0) as response:  # noqa: S310
        body: bytes = response.read()
    return body


if __name__ == "__main__":
    for count in (0, 1, 100):
        cost = measure(Setting(jobs=count))
        print(
            f"{count:>3} jobs: {cost.seconds * 1e3:.1f} ms, {cost.series:,} series, "
            f"{cost.bytes:,} bytes, {cost.packed_bytes:,} in gzip"
        )
