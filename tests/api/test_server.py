"""What holds for every call: health, reflection, limits, and errors that give nothing away."""

import asyncio
import errno
import socket
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from itertools import product
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from chainrule.v1 import training_service_pb2_grpc
from service.__main__ import Refused, coordinator, network_of
from service.api.calls import Calls
from service.api.datasets import DatasetServicer
from service.api.inference import InferenceServicer
from service.api.models import ModelServicer
from service.api.online import OnlineStreams
from service.api.server import SERVICES as SERVED
from service.api.server import AddressTaken
from service.api.server import serving as serving_api
from service.api.training import TrainingServicer
from service.api.watching import Watching
from service.cluster.cluster import Room
from service.cluster.local_cluster import LocalCluster
from service.data.datasets import Content, Datasets
from service.data.importing import Imports
from service.data.uploads import Uploads
from service.models.aliases import Aliases
from service.models.loaded import LoadedModels
from service.models.predictor import Predictor
from service.models.registry import Models
from service.settings import Settings
from service.training.preparing import Preparing
from service.training.promotion import Promotion
from service.training.transfer import Transfer
from service.wire.network import model_network
from tests.api.running import FLOWERS, SECONDS, Service, refusal, refused, request, serving
from tests.unit.service.examples import jobs_in
from tests.unit.service.unreliable import GatedCluster

SERVICES = (
    "chainrule.v1.TrainingService",
    "chainrule.v1.DatasetService",
    "chainrule.v1.ModelService",
    "inference.GRPCInferenceService",
)
SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("name", ["", *SERVICES])
def test_health(name: str, shared: Service) -> None:
    stub = health_pb2_grpc.HealthStub(shared.channel)
    asked = health_pb2.HealthCheckRequest(service=name)
    assert stub.Check(asked, timeout=SECONDS).status == SERVING
    watch = stub.Watch(asked, timeout=SECONDS)
    assert next(watch).status == SERVING
    watch.cancel()


def test_health_of_what_is_not_there(shared: Service) -> None:
    stub = health_pb2_grpc.HealthStub(shared.channel)
    with pytest.raises(grpc.RpcError) as error:
        stub.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=SECONDS)
    assert refused(error.value).code == grpc.StatusCode.NOT_FOUND


def test_health_is_watched_to_the_end(tmp_path: Path) -> None:
    with serving(tmp_path, GatedCluster()) as service:
        watch = health_pb2_grpc.HealthStub(service.channel).Watch(health_pb2.HealthCheckRequest(), timeout=SECONDS)
        assert next(watch).status == SERVING
        service.stop()
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING


def test_reflection(shared: Service) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(shared.channel)

    def ask(**fields: str) -> Any:
        return next(iter(stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(**fields)]))))

    names = {service.name for service in ask(list_services="").list_services_response.service}
    assert names == {*SERVICES, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    for name in SERVICES:
        assert ask(file_containing_symbol=name).file_descriptor_response.file_descriptor_proto


def test_a_method_that_is_none(shared: Service) -> None:
    call: Any = shared.channel.unary_unary("/chainrule.v1.TrainingService/Nothing")
    with pytest.raises(grpc.RpcError) as error:
        call(b"", timeout=SECONDS)
    assert refused(error.value).code == grpc.StatusCode.UNIMPLEMENTED


def test_bytes_that_are_no_message(shared: Service) -> None:
    """In every kind of call."""
    single: Any = shared.channel.unary_unary("/chainrule.v1.TrainingService/GetTrainingJob")
    answered: Any = shared.channel.unary_stream("/chainrule.v1.TrainingService/WatchTrainingJob")
    sent: Any = shared.channel.stream_unary("/chainrule.v1.DatasetService/UploadDataset")
    calls: list[Callable[[bytes], object]] = [
        lambda data: single(data, timeout=SECONDS),
        lambda data: list(answered(data, timeout=SECONDS)),
        lambda data: sent(iter([data]), timeout=SECONDS),
    ]
    no_text = b"\x0a\x02\xff\xff"
    for call, data in product(calls, (b"\xff" * 20, no_text)):
        found = refusal(lambda call=call, data=data: call(data))  # type: ignore[misc]
        assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "NO_MESSAGE")
        assert found.fields == {"request": "is not the message that the method takes"}


# Errors of the service itself


async def ask(port: int, call: Callable[[Any], Any]) -> grpc.aio.AioRpcError:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            await call(training_service_pb2_grpc.TrainingServiceStub(channel))
        except grpc.aio.AioRpcError as error:
            return error
    raise AssertionError("it was not refused")


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (RuntimeError("secret"), grpc.StatusCode.INTERNAL, ""),
        (AssertionError("secret"), grpc.StatusCode.INTERNAL, ""),
        (OSError(errno.EIO, "secret"), grpc.StatusCode.INTERNAL, ""),
        (OSError(errno.ENOSPC, "secret"), grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL"),
    ],
    ids=repr,
)
def test_an_error_in_the_service_gives_nothing_away(
    error: Exception, code: grpc.StatusCode, reason: str, tmp_path: Path
) -> None:
    """The part that fails is the cluster, asked for its room."""

    def room() -> Room:
        raise error

    async def run() -> grpc.aio.AioRpcError:
        datasets, models = Datasets(tmp_path / "datasets", 10**6), Models(tmp_path / "models")
        (tmp_path / "flowers.npz").write_bytes(FLOWERS)
        datasets.add("flowers", Content.of(tmp_path / "flowers.npz"), tmp_path / "flowers.npz")
        with jobs_in(tmp_path) as jobs:
            served = DatasetServicer(datasets, Uploads(tmp_path / "uploads"), Imports([], 10**6), jobs)
            aliases = Aliases(tmp_path / "aliases.json", models)
            transfer = Transfer(models, jobs, tmp_path / "checkpoints", model_network, aliases.resolve)
            promotion = Promotion(models, jobs, tmp_path / "checkpoints", model_network)
            watching = Watching(jobs, lambda _: "")
            online = OnlineStreams(jobs, lambda _: None, watching.describe, 1.0)
            preparing = Preparing(datasets, jobs, tmp_path)
            training = TrainingServicer(jobs, preparing, transfer, room, watching, promotion, online)
            with closing(Predictor(LoadedModels(models, network_of, 10**6))) as predictor:
                inference = InferenceServicer(predictor, aliases, 10**6)
                parts = (
                    training,
                    served,
                    ModelServicer(models, jobs, aliases, predictor, datasets, promotion),
                    inference,
                    Calls(SERVED),
                )
                async with serving_api("127.0.0.1:0", *parts) as server:
                    found = await ask(server.port, lambda stub: stub.CreateTrainingJob(request()))
            assert jobs.all() == []
            return found

    found = asyncio.run(run())
    assert (found.code(), "secret" in str(found.details())) == (code, False)
    if reason:
        assert reason in str(found.trailing_metadata())
    else:
        assert str(found.details()).startswith("an error in the service itself; its log tells more at ")
    assert "secret" not in str(found.trailing_metadata())


# Starting


@asynccontextmanager
async def started(directory: Path, **settings: str) -> AsyncIterator[None]:
    given = {"listen": "127.0.0.1:0", "metrics_listen": "127.0.0.1:0", **settings}
    async with coordinator(Settings(data_dir=directory, **given), LocalCluster()):  # type: ignore[arg-type]
        yield


@pytest.fixture
def taken() -> Iterator[str]:
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield f"127.0.0.1:{other.getsockname()[1]}"


def start(directory: Path, **settings: str) -> None:
    async def run() -> None:
        async with started(directory, **settings):
            pass

    asyncio.run(run())


def test_addresses_that_are_taken(taken: str, tmp_path: Path) -> None:
    with pytest.raises(AddressTaken, match=f"can't listen at {taken}"):
        start(tmp_path, listen=taken)
    with pytest.raises(Refused, match=f"can't listen at {taken} for metrics: Address already in use"):
        start(tmp_path, metrics_listen=taken)
    with pytest.raises(Refused, match=f"can't listen at {taken} for the web page: Address already in use"):
        start(tmp_path, web_listen=taken)
    start(tmp_path)


@pytest.mark.parametrize("address", ["", "localhost", ":50051", "localhost:", "localhost:x", "localhost:65536", "h:-1"])
def test_addresses_that_are_none(address: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"is .*; must be HOST:PORT, such as"):
        start(tmp_path, listen=address)


# Metrics


def test_metrics_while_a_job_runs_and_after_it_is_deleted(gated: Service, cluster: GatedCluster) -> None:
    def scrape() -> dict[str, float]:
        with urllib.request.urlopen(gated.addresses["metrics"], timeout=SECONDS) as response:  # noqa: S310 - our own
            text = response.read().decode()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {sample.name: sample.value for sample in samples if sample.labels.get("job_id")}

    name = gated.create().name
    cluster.let_through(7)
    for update in gated.watch(name):
        if update.progress.step == 7:
            break
    running = scrape()
    assert (running["chainrule_steps_total"], running["chainrule_epochs_total"]) == (7, 1)
    assert running["chainrule_training_loss"] == gated.get(name).progress.training_loss
    cluster.gate.set()
    ended = gated.end(name)
    after = scrape()
    assert (after["chainrule_steps_total"], after["chainrule_samples_total"]) == (12, 96)
    assert after["chainrule_validation_loss"] == ended.result.validation_loss
    assert after["chainrule_validation_accuracy_ratio"] == ended.result.validation_accuracy
    gated.delete(name)
    assert scrape() == {}
