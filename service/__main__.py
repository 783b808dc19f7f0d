"""The composition root: makes every part, gives each what it needs, and ends them in order."""

import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing
from typing import TYPE_CHECKING, TextIO

import structlog
import threadpoolctl
from pydantic import ValidationError
from pydantic_settings import CliApp

from service.access.audit import audit_log
from service.access.certificates import Certificates, watched_certificates
from service.access.door import Door
from service.access.limits import Limits
from service.access.tokens import watched_tokens
from service.access.watched import Watched
from service.api.calls import Calls
from service.api.datasets import DatasetServicer
from service.api.guard import Guard
from service.api.inference import InferenceServicer
from service.api.models import ModelServicer
from service.api.online import OnlineStreams
from service.api.server import SERVICES, AddressTaken, serving
from service.api.training import TrainingServicer
from service.api.watching import Watching
from service.clock import clock_trouble
from service.cluster.cluster import Cluster, ClusterError
from service.cluster.node import beside, head
from service.cluster.ray_cluster import RayCluster
from service.cluster.ray_workers import Patience
from service.data.datasets import Datasets, Quota
from service.data.importing import Imports
from service.data.uploads import Keeping, Uploads
from service.directory import DirectoryUnusable, check_whole, instance, locked
from service.files import allow_files
from service.jobs.jobs import Jobs
from service.jobs.scheduler import Scheduler
from service.jobs.store import JobStore, StoreError
from service.log import configure_log
from service.metrics.calls import CallMetrics
from service.metrics.endpoint import metrics_endpoint
from service.metrics.fleet import Fleet, FleetMetrics
from service.metrics.jobs import JobMetrics
from service.metrics.predictions import PredictionMetrics
from service.metrics.process import ProcessMetrics
from service.models.aliases import Aliases
from service.models.loaded import LoadedModels
from service.models.predictor import Predictor
from service.models.registry import Model, Models
from service.retention import KEEP_ALL, Keep, Retention
from service.settings import Settings, host_and_port
from service.tracing.wanted import wanted
from service.training.preparing import Preparing
from service.training.promotion import Promotion
from service.training.runner import Runner
from service.training.trainer import Policy
from service.training.transfer import Transfer
from service.web import site
from service.wire.job import layers_json, origin, spec_text
from service.wire.network import model_network
from worker.network import Network

if TYPE_CHECKING:
    from service.tracing.spans import Tracing

MOST_FILES = 65_536
"""How many files and connections there may be: many systems say 1,024, which idle clients alone use up."""

STOP_SECONDS = 30.0
"""How long running jobs have to write a checkpoint when the service stops."""


class Refused(Exception):
    """The service can't start; the message is for whoever started it."""


def main() -> None:
    """Runs the coordinator until it is told to stop.

    Exits with a line that says why: with 2 if it can't start, with 1 if its Ray cluster is lost.
    """
    # Ray prints to standard output what its processes have to say; only the announcement belongs there.
    announcements, sys.stdout = sys.stdout, sys.stderr
    try:
        settings = CliApp.run(Settings, cli_args=sys.argv[1:])
        configure_log()
        if trouble := clock_trouble():
            raise Refused(trouble)
        allow_files(MOST_FILES)
        with ExitStack() as stack:
            stack.enter_context(locked(settings.data_dir))
            check_whole(settings.data_dir)
            # Before any gRPC object exists, and before signal handlers: Ray sets up both in its own way.
            address = settings.ray_address or os.environ.get("RAY_ADDRESS")
            if settings.ray_listen:
                address = stack.enter_context(head(*host_and_port(settings.ray_listen), settings.local_workers))
            elif address:
                stack.enter_context(beside(address))
            prefix = f"chainrule-{instance(settings.data_dir)}-"
            patience = Patience(
                answer_seconds=settings.worker_answer_seconds,
                join_seconds=settings.worker_join_seconds,
                trainer_seconds=settings.trainer_answer_seconds,
            )
            cluster = stack.enter_context(closing(RayCluster(address, settings.local_workers, prefix, patience)))
            asyncio.run(run(settings, cluster, announcements))
    except ValidationError as error:
        for problem in error.errors():
            option = ".".join(map(str, problem["loc"])).replace("_", "-")
            prefix = f"--{option}: " if option else ""
            sys.stderr.write(f"{prefix}{problem['msg'].removeprefix('Value error, ')}\n")
        sys.exit(2)
    except (Refused, DirectoryUnusable, ClusterError, AddressTaken, StoreError) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)


async def run(settings: Settings, cluster: RayCluster, announcements: TextIO) -> None:
    """Serves until SIGTERM, SIGINT, or the end of standard input if the settings say so."""
    stop = _stop_event(settings.until_stdin_closes)
    cluster.watch(_give_up)
    async with coordinator(settings, cluster) as addresses:
        structlog.get_logger(__name__).info("ready", **addresses)
        if settings.announce:
            announcements.write(f"{json.dumps(addresses)}\n")
            announcements.flush()
        await stop.wait()


@asynccontextmanager
async def coordinator(settings: Settings, cluster: Cluster) -> AsyncIterator[dict[str, str]]:
    """A coordinator on a data directory that is its own, its parts made in order and ended in reverse.

    Gives its addresses: "grpc" as HOST:PORT, with grpcs:// before it if it speaks TLS, "metrics" and, if there is one,
    the "web" page as URLs, and its "data_dir". Raises Refused, AddressTaken or StoreError.
    """
    directory = settings.data_dir
    host, _ = host_and_port(settings.listen)
    metrics_host, metrics_port = host_and_port(settings.metrics_listen)
    door, certificates = _access(settings)
    with ExitStack() as stack:
        store = stack.enter_context(closing(JobStore(directory / "jobs.sqlite", spec_text())))
        jobs = Jobs(store, most_unfinished=settings.unfinished_jobs)
        datasets, uploads, imports = _data(settings)
        models = Models(directory / "models", settings.max_model_bytes)
        aliases = Aliases(directory / "aliases.json", models)
        transfer = Transfer(models, jobs, directory / "checkpoints", model_network, aliases.resolve)
        transfer.sweep()
        preparing = Preparing(datasets, jobs, directory / "checkpoints")
        preparing.sweep()
        # Forward passes have threads of their own, and more of BLAS in each would stand in each other's way.
        stack.enter_context(threadpoolctl.threadpool_limits(1))
        loaded = LoadedModels(models, network_of, settings.model_cache_bytes)
        predictor = stack.enter_context(closing(Predictor(loaded, ask=cluster.help_with)))
        policy = Policy(settings.checkpoint_seconds, settings.worker_wait_seconds, settings.online_wait_seconds)
        runner = Runner(jobs, datasets, models, cluster, policy, directory / "checkpoints", layers_json, origin)
        runner.sweep()

        def capacity() -> int:
            return cluster.room().workers

        scheduler = Scheduler(jobs, capacity, runner.run, cluster.want)
        jobs.requeue_interrupted()
        keep = Keep(settings.keep_ended_seconds, settings.keep_ended_jobs)
        if keep != KEEP_ALL:
            doomed = models if settings.delete_models_too else None
            stack.enter_context(closing(Retention(jobs, keep, doomed, aliases)))

        tracing = _tracing(jobs)
        if tracing:
            stack.enter_context(closing(tracing))
        calls = Calls(SERVICES, tracing.call if tracing else None)
        metrics = (
            FleetMetrics(Fleet(jobs, scheduler, datasets, models, directory)),
            JobMetrics(jobs, runner.timings.get, settings.metrics_retention_seconds),
            PredictionMetrics(predictor.usage, loaded),
            CallMetrics(calls),
            ProcessMetrics(),
        )
        texts = [family.text for family in metrics]
        try:
            metrics_port = stack.enter_context(
                metrics_endpoint(metrics_host, metrics_port, *texts, door=door, certificates=certificates)
            )
        except OSError as error:
            raise Refused(f"can't listen at {settings.metrics_listen} for metrics: {error.strerror}") from error

        watching = Watching(
            jobs, lambda job_id: scheduler.reason(job_id) or online.waiting(job_id), settings.watch_heartbeat_seconds
        )
        online = OnlineStreams(jobs, runner.feed, watching.describe, settings.online_wait_seconds)
        promotion = Promotion(models, jobs, directory / "checkpoints", model_network)
        training = TrainingServicer(jobs, preparing, transfer, cluster.room, watching, promotion, online)
        dataset_servicer = DatasetServicer(datasets, uploads, imports, jobs)
        most_bytes = settings.max_message_bytes
        inference = InferenceServicer(predictor, aliases, most_bytes)
        model_servicer = ModelServicer(models, jobs, aliases, predictor, datasets, promotion)
        audit = stack.enter_context(audit_log(directory / "audit.log"))
        guard = Guard(door, Limits(settings.calls_per_second, settings.concurrent_calls), audit)
        servicers = (training, dataset_servicer, model_servicer, inference)
        async with (
            _page(settings.web_listen, jobs, watching, door, certificates) as page,
            serving(settings.listen, *servicers, calls, most_bytes, guard, certificates) as server,
        ):
            scheduler.start()
            try:
                yield {
                    "grpc": f"{'grpcs://' if certificates else ''}{host}:{server.port}",
                    "metrics": f"{'https' if certificates else 'http'}://{metrics_host}:{metrics_port}/metrics",
                    **page,
                    "data_dir": str(directory),
                }
            finally:
                await server.drain()
                runner.stop()
                await asyncio.to_thread(scheduler.stop, STOP_SECONDS)
                watching.stop()


@asynccontextmanager
async def _page(
    address: str | None, jobs: Jobs, watching: Watching, door: Door, certificates: Watched[Certificates] | None
) -> AsyncIterator[dict[str, str]]:
    """The web page, if there is to be one; gives its address. Raises Refused."""
    if address is None:
        yield {}
        return
    async with AsyncExitStack() as stack:
        try:
            port = await stack.enter_async_context(site.serving(address, jobs, watching, door, certificates))
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else error
            raise Refused(f"can't listen at {address} for the web page: {why}") from error
        yield {"web": f"{'https' if certificates else 'http'}://{host_and_port(address)[0]}:{port}/"}


def network_of(model: Model) -> Network:
    """A model's network, as its description has it."""
    return model_network(model.layers_json, model.input_shape)


def _access(settings: Settings) -> tuple[Door, Watched[Certificates] | None]:
    """Who is let in, and with which certificate the service shows who it is. Raises Refused."""
    if settings.allow_insecure:
        _log_what_is_open(settings)
    try:
        door = Door(watched_tokens(settings.auth_tokens) if settings.auth_tokens else None)
    except (OSError, ValueError) as error:
        raise Refused(f"--auth-tokens: {_why(error)}") from error
    if settings.tls_cert is None or settings.tls_key is None:
        return door, None
    try:
        return door, watched_certificates(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    except (OSError, ValueError) as error:
        raise Refused(f"--tls-cert, --tls-key and --tls-client-ca: {_why(error)}") from error


def _log_what_is_open(settings: Settings) -> None:
    missing = [
        *([] if settings.authenticates else ["anyone who reaches it may do everything"]),
        *([] if settings.tls_cert else ["whoever is on the way reads everything, tokens included"]),
    ]
    if missing:
        structlog.get_logger(__name__).warning("insecure, as was asked for", why=missing, listen=settings.listen)


def _tracing(jobs: Jobs) -> "Tracing | None":
    """What makes traces, if there are to be any. Raises Refused."""
    try:
        asks = wanted(os.environ)
        if not asks:
            return None
        from service.tracing.spans import Tracing

        return Tracing(jobs)
    except ModuleNotFoundError as error:
        raise Refused(
            f"{asks} is set, and traces need the extra otel: pip install 'chainrule[otel]', or unset it"
        ) from error
    except ValueError as error:
        raise Refused(f"OpenTelemetry can't be set up by the variables OTEL_*: {error}") from error


def _why(error: OSError | ValueError) -> str:
    """What a file lacks, for whoever starts the service."""
    return f"can't read {error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)


def _data(settings: Settings) -> tuple[Datasets, Uploads, Imports]:
    """Where datasets are, and the two ways they come. Raises Refused."""
    directory, most_bytes = settings.data_dir, settings.max_dataset_bytes
    datasets = Datasets(
        directory / "datasets", most_bytes, Quota(settings.total_dataset_bytes, settings.total_dataset_count)
    )
    # A single dataset of the largest size must fit, whatever the settings say.
    keeping = Keeping(max(settings.unfinished_upload_bytes, most_bytes), settings.unfinished_upload_seconds)
    try:
        return datasets, Uploads(directory / "uploads", keeping), Imports(settings.import_root, most_bytes)
    except ValueError as error:
        raise Refused(str(error)) from error


def _stop_event(until_stdin_closes: bool) -> asyncio.Event:
    """An event that is set when the service is told to stop."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if until_stdin_closes:

        def read_to_end() -> None:
            while os.read(sys.stdin.fileno(), 1024):
                pass
            loop.call_soon_threadsafe(stop.set)

        threading.Thread(target=read_to_end, daemon=True).start()
    return stop


def _give_up(reason: str) -> None:
    """Ends the process with code 1, for whoever supervises it to start it again: without its Ray it is of no use.

    At once, as by a kill: what could be ended in order waits for Ray, and what matters is on disk.
    """
    structlog.get_logger(__name__).error("the Ray cluster is lost; the jobs go on at the next start", reason=reason)
    os._exit(1)


if __name__ == "__main__":
    main()
