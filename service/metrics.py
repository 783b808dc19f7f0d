"""What Prometheus scrapes.

Read from the state when a scrape comes, so that training never waits for it. A job has series from its start until
some time after its end, so that their number stays bounded however many jobs there were.
"""

import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from service.access.certificates import Certificates, renewed_context
from service.access.door import Door
from service.access.watched import Watched
from service.errors import Unauthenticated
from service.jobs.job import STATES, Job, Progress
from service.jobs.jobs import Jobs
from service.models import usage
from service.models.loaded import LoadedModels
from service.models.usage import Usage
from service.training.timing import BUCKETS, PHASES, Timing

JOB = ("job_id",)
"""The label of a job's series. Prometheus itself puts `job` on everything, for the scrape's target."""


class JobMetrics(Collector):
    """The metrics of the jobs."""

    def __init__(
        self,
        jobs: Jobs,
        timing: Callable[[str], Timing | None],
        capacity: Callable[[], int],
        retention_seconds: float,
    ) -> None:
        """Series of a job that ended more than `retention_seconds` ago are left out."""
        self._jobs = jobs
        self._timing = timing
        self._capacity = capacity
        self._retention_seconds = retention_seconds

    def collect(self) -> Iterator[Metric]:
        """All metrics, as of now."""
        everything = self._jobs.all()
        shown = [(job, self._jobs.progress(job.id)) for job in everything if self._is_shown(job)]
        yield from _fleet(everything, shown, self._capacity())
        yield from _losses(shown)
        yield _scores(shown)
        yield from _counts(shown)
        yield self._phases(shown)

    def _is_shown(self, job: Job) -> bool:
        if job.started is None:
            return False
        return job.ended is None or (datetime.now(UTC) - job.ended).total_seconds() < self._retention_seconds

    def _phases(self, shown: list[tuple[Job, Progress]]) -> Metric:
        family = HistogramMetricFamily(
            "chainrule_step_phase_seconds",
            "Time that the steps of a job spent in a phase.",
            labels=(*JOB, "phase"),
        )
        for job, _ in shown:
            if timing := self._timing(job.id):
                for phase in PHASES:
                    family.add_metric(
                        (job.id, phase), _cumulative(timing.counts[phase], BUCKETS), timing.seconds[phase]
                    )
        return family


class PredictionMetrics(Collector):
    """The metrics of what models were asked for. Models are no label: there may be any number of them."""

    def __init__(self, used: Usage, loaded: LoadedModels) -> None:
        self._usage = used
        self._loaded = loaded

    def collect(self) -> Iterator[Metric]:
        """All metrics, as of now."""
        used, loaded = self._usage, self._loaded
        requests = CounterMetricFamily(
            "chainrule_predictions", "Requests for predictions by outcome.", labels=("outcome",)
        )
        for outcome, count in used.requests.items():
            requests.add_metric((outcome,), count)
        yield requests
        yield CounterMetricFamily("chainrule_prediction_rows", "Rows predicted.", used.rows)
        buckets = _cumulative(list(used.counts), usage.BUCKETS)
        text = "Time from a request for predictions to its answer."
        yield HistogramMetricFamily("chainrule_prediction_seconds", text, buckets, used.seconds)
        yield GaugeMetricFamily("chainrule_model_cache_bytes", "Memory of the models at hand.", loaded.bytes)
        yield GaugeMetricFamily("chainrule_model_cache_models", "Models at hand.", loaded.count)
        yield CounterMetricFamily("chainrule_model_loads", "Models read from the disk.", loaded.loads)


@contextmanager
def metrics_endpoint(
    host: str,
    port: int,
    *collectors: Collector,
    door: Door | None = None,
    certificates: Watched[Certificates] | None = None,
) -> Iterator[int]:
    """Serves /metrics while the context is open, to whom the door lets in; gives the port. Raises OSError."""
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    app = _behind(door or Door(), make_wsgi_app(registry))
    server = make_server(host.strip("[]"), port, app, _Server, _Connection)
    if certificates:
        # Hands are shaken when the first byte is read, in the connection's own thread and time.
        server.socket = renewed_context(certificates).wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for every connection."""

    daemon_threads = True

    @property
    def address_family(self) -> socket.AddressFamily:  # type: ignore[override]
        return socket.AF_INET6 if ":" in str(self.server_address[0]) else socket.AF_INET


class _Connection(WSGIRequestHandler):
    """One connection, which says nothing in the log and may not be silent for long."""

    timeout = 10.0

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002, ARG002 - the library's names
        return


def _behind(door: Door, app: WSGIApplication) -> WSGIApplication:
    """An application for those whom the door lets in."""

    def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        header = environ.get("HTTP_AUTHORIZATION")
        try:
            door.principal([header] if header else [])
        except Unauthenticated as error:
            start_response("401 Unauthorized", [("Content-Type", "text/plain"), ("WWW-Authenticate", "Bearer")])
            return [f"{error.message}\n".encode()]
        return app(environ, start_response)

    return guarded


def _fleet(everything: list[Job], shown: list[tuple[Job, Progress]], capacity: int) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("chainrule_jobs", "Jobs by state.", labels=("state",))
    states: Counter[str] = Counter(job.state.kind for job in everything)
    for state in STATES:
        jobs.add_metric((state.lower(),), states[state])
    yield jobs
    workers = GaugeMetricFamily("chainrule_workers", "Workers by state.", labels=("state",))
    # Before its first step a job's workers are not known to have started.
    stepping = [(job, progress) for job, progress in shown if job.is_at_work and progress.step]
    ready = sum(job.workers(progress) for job, progress in stepping)
    lost = sum(max(job.spec.workers - job.workers(progress), 0) for job, progress in stepping)
    for name, count in (("busy", ready), ("lost", lost), ("free", max(capacity - ready - lost, 0))):
        workers.add_metric((name,), count)
    yield workers


def _losses(shown: list[tuple[Job, Progress]]) -> Iterator[Metric]:
    """Gauges of a job. What a job doesn't have (a validation loss before the first epoch) has no series."""
    gauges: tuple[tuple[str, str, Callable[[Job, Progress], float | None]], ...] = (
        (
            "training_loss",
            "Mean loss over the rows of the newest step.",
            lambda job, p: p.training_loss if p.step else job.epoch.training_loss if job.epoch else None,
        ),
        (
            "validation_loss",
            "Mean loss over the held-out rows after the newest epoch.",
            lambda job, _: job.epoch.validation_loss if job.epoch else None,
        ),
        (
            "validation_accuracy_ratio",
            "Share of the held-out rows classified correctly after the newest epoch.",
            lambda job, _: job.epoch.validation_accuracy if job.epoch else None,
        ),
        ("learning_rate", "Learning rate of the newest step.", lambda job, p: job.learning_rate(p)),
        ("job_workers", "Workers of a job that are ready or at work.", lambda job, p: job.workers(p)),
    )
    for name, text, value in gauges:
        family = GaugeMetricFamily(f"chainrule_{name}", text, labels=JOB)
        for job, progress in shown:
            if (number := value(job, progress)) is not None:
                family.add_metric((job.id,), number)
        yield family


def _scores(shown: list[tuple[Job, Progress]]) -> Metric:
    family = GaugeMetricFamily(
        "chainrule_validation_score",
        "Scores of the held-out rows after the newest epoch: accuracy, f1, rmse and so on.",
        labels=(*JOB, "score"),
    )
    for job, _ in shown:
        for score, value in (job.epoch.validation_scores if job.epoch else {}).items():
            family.add_metric((job.id, score), value)
    return family


def _counts(shown: list[tuple[Job, Progress]]) -> Iterator[Metric]:
    counters: tuple[tuple[str, str, Callable[[Job, Progress], float]], ...] = (
        ("steps", "Steps applied.", lambda job, progress: job.steps(progress)),
        ("samples", "Training rows used, once for every epoch.", lambda job, p: job.shards.samples(job.steps(p))),
        ("epochs", "Epochs completed.", lambda job, _: job.epoch.epoch if job.epoch else 0),
        ("worker_failures", "Workers lost.", lambda job, _: job.worker_failures),
    )
    for name, text, value in counters:
        family = CounterMetricFamily(f"chainrule_{name}", text, labels=JOB)
        for job, progress in shown:
            family.add_metric((job.id,), value(job, progress))
        yield family


def _cumulative(counts: list[int], bounds: Sequence[float]) -> list[tuple[str, float]]:
    """Prometheus's buckets count everything up to their bound."""
    total = 0.0
    buckets = []
    for bound, count in zip((*map(str, bounds), "+Inf"), counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets
