"""Calls as Prometheus sees them: how many, how they ended, how many messages went each way."""

import time
import urllib.request
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from chainrule.inference import open_inference_pb2
from chainrule.v1 import dataset_service_pb2, model_service_pb2, training_service_pb2
from chainrule.v1 import training_service_pb2 as pb
from tests.api.running import FLOWERS, SECONDS, Service, head, parts
from tests.unit.service.scraping import Scraped
from tests.unit.service.unreliable import GatedCluster

TRAINING = "chainrule.v1.TrainingService"
SERVED = (training_service_pb2, dataset_service_pb2, model_service_pb2, open_inference_pb2, health_pb2, reflection_pb2)


class Counts:
    """What a scrape says of one method."""

    def __init__(self, service: Service, method: str, kind: str, of: str = TRAINING) -> None:
        self._service = service
        self._labels = {"grpc_type": kind, "grpc_service": of, "grpc_method": method}

    def of(self, name: str, **labels: str) -> float | None:
        return scraped(self._service).value(f"grpc_server_{name}", **self._labels, **labels)

    def handled(self) -> dict[str, float]:
        """The codes with which calls ended."""
        samples = scraped(self._service).samples
        found = {
            dict(labels)["grpc_code"]: value
            for (name, labels), value in samples.items()
            if name == "grpc_server_handled_total" and self._labels.items() <= dict(labels).items()
        }
        return {code: value for code, value in found.items() if value}


def scraped(service: Service) -> Scraped:
    with urllib.request.urlopen(service.addresses["metrics"], timeout=SECONDS) as response:  # noqa: S310 - our own http
        return Scraped(response.read().decode())


def eventually(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_every_method_that_is_served_is_there_from_the_start(service: Service) -> None:
    methods = {
        (method.containing_service.full_name, method.name)
        for module in SERVED
        for described in module.DESCRIPTOR.services_by_name.values()
        for method in described.methods
    }
    found = scraped(service)
    for name in ("started_total", "handled_total", "handling_seconds_count", "msg_received_total", "msg_sent_total"):
        series = [dict(labels) for (full, labels) in found.samples if full == f"grpc_server_{name}"]
        assert {(labels["grpc_service"], labels["grpc_method"]) for labels in series} == methods
    codes = found.having("grpc_code")["grpc_server_handled_total"]
    assert len(codes) == len(grpc.StatusCode)
    # As go-grpc-prometheus has them, and with it the dashboards and alerts that there are.
    assert {"OK", "Canceled", "InvalidArgument", "DeadlineExceeded", "Unimplemented", "DataLoss"} <= codes


def test_calls_by_how_they_ended(service: Service) -> None:
    counts = Counts(service, "GetTrainingJob", "unary")
    name = service.create().name
    for _ in range(3):
        service.get(name)
    for wrong in ("jobs/none", "nonsense"):
        with pytest.raises(grpc.RpcError):
            service.get(wrong)
    garbage: Any = service.channel.unary_unary(f"/{TRAINING}/GetTrainingJob")
    with pytest.raises(grpc.RpcError):
        garbage(b"\xff\xff\xff", timeout=SECONDS)
    eventually(lambda: sum(counts.handled().values()) == 6)
    assert counts.handled() == {"OK": 3, "NotFound": 1, "InvalidArgument": 2}
    assert [counts.of(n) for n in ("started_total", "msg_received_total", "msg_sent_total")] == [6, 6, 3]
    assert counts.of("handling_seconds_bucket", le="+Inf") == counts.of("handling_seconds_count") == 6
    total = counts.of("handling_seconds_sum")
    assert total is not None
    assert 0 < total < SECONDS


def test_messages_of_streams(service: Service) -> None:
    sent = [head("again", FLOWERS), *parts(FLOWERS)]
    service.send(sent)
    upload = Counts(service, "UploadDataset", "client_stream", "chainrule.v1.DatasetService")
    before = {"started_total": 1 + 1, "msg_sent_total": 1 + 1}  # the fixture uploads the same file
    assert {name: upload.of(name) for name in before} == before
    assert upload.of("msg_received_total") == 2 * len(sent)
    updates = len(list(service.watch(service.create().name)))
    watch = Counts(service, "WatchTrainingJob", "server_stream")
    eventually(lambda: watch.handled() == {"OK": 1})
    assert [watch.of("msg_received_total"), watch.of("msg_sent_total")] == [1, updates]


def test_those_who_leave(gated: Service, cluster: GatedCluster) -> None:
    """Whether they hang up, or their time is over."""
    job = gated.create().name
    counts = Counts(gated, "WatchTrainingJob", "server_stream")
    watch = gated.watch(job)
    next(watch)
    assert (counts.of("started_total"), counts.handled()) == (1, {})
    watch.cancel()
    eventually(lambda: counts.handled() == {"Canceled": 1})
    with pytest.raises(grpc.RpcError):
        list(gated.training.WatchTrainingJob(pb.WatchTrainingJobRequest(name=job), timeout=0.3))
    eventually(lambda: sum(counts.handled().values()) == 2)
    assert counts.handled() == {"Canceled": 1, "DeadlineExceeded": 1}
    cluster.gate.set()


def test_the_standard_services_count_too(service: Service) -> None:
    stub = health_pb2_grpc.HealthStub(service.channel)
    stub.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
    watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=SECONDS)
    next(watch)
    watch.cancel()
    counts = Counts(service, "Watch", "server_stream", "grpc.health.v1.Health")
    eventually(lambda: counts.handled() == {"Canceled": 1})
    assert counts.of("msg_sent_total") == 1
    reflection = reflection_pb2_grpc.ServerReflectionStub(service.channel)
    asked = [reflection_pb2.ServerReflectionRequest(list_services="")] * 2
    assert len(list(reflection.ServerReflectionInfo(iter(asked), timeout=SECONDS))) == 2
    counts = Counts(service, "ServerReflectionInfo", "bidi_stream", "grpc.reflection.v1alpha.ServerReflection")
    eventually(lambda: counts.handled() == {"OK": 1})
    assert [counts.of("msg_received_total"), counts.of("msg_sent_total")] == [2, 2]


def test_what_is_not_served_makes_no_series(service: Service) -> None:
    before = scraped(service).having("grpc_method")
    for path in ("/nobody.Knows/This", f"/{TRAINING}/NorThis"):
        call: Any = service.channel.unary_unary(path)
        with pytest.raises(grpc.RpcError):
            call(b"", timeout=SECONDS)
    assert scraped(service).having("grpc_method") == before
