"""Traces, as a collector gets them by OTLP from a coordinator that serves."""

import asyncio
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as otlp_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from chainrule.v1 import training_job_pb2 as job_pb
from chainrule.v1 import training_service_pb2 as pb
from service.__main__ import Refused, coordinator
from service.cluster.local_cluster import LocalCluster
from service.settings import Settings
from service.tracing.wanted import wanted
from tests.api.running import FLOWERS, SECONDS, Service, request, serving

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SECRETS = ("token-of-somebody", "what it is for", "a label's value")
METADATA = (
    ("traceparent", f"00-{TRACE}-{CALLER}-01"),
    ("x-request-id", "mine-1"),
    ("authorization", f"Bearer {SECRETS[0]}"),
)


class Sink(otlp_grpc.TraceServiceServicer):
    """A collector that keeps what it is sent."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resources: list[dict[str, Any]] = []

    def Export(self, request: otlp.ExportTraceServiceRequest, context: object) -> otlp.ExportTraceServiceResponse:  # noqa: ARG002, N802
        for of_one in request.resource_spans:
            self.resources.append(attributes(of_one.resource))
            self.spans += [span for scope in of_one.scope_spans for span in scope.spans]
        return otlp.ExportTraceServiceResponse()

    def of(self, method: str) -> list[Span]:
        """The spans of a method's calls."""
        return [span for span in self.spans if attributes(span).get("rpc.method") == method]

    @property
    def jobs(self) -> list[Span]:
        return [span for span in self.spans if span.name == "job"]


def attributes(holder: Any) -> dict[str, Any]:
    return {each.key: next(iter(MessageToDict(each.value).values())) for each in holder.attributes}


@contextmanager
def collecting() -> Iterator[tuple[Sink, str]]:
    """A collector, and its endpoint."""
    sink, server = Sink(), grpc.server(ThreadPoolExecutor(2))
    otlp_grpc.add_TraceServiceServicer_to_server(sink, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield sink, f"http://127.0.0.1:{port}"
    finally:
        server.stop(None).wait(SECONDS)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sink, job_pb.TrainingJob]]:
    """What a collector has got of a coordinator's life, in which a job succeeded, once that has ended."""
    with collecting() as (sink, endpoint), pytest.MonkeyPatch.context() as environment:
        environment.setenv(ENDPOINT, endpoint)
        environment.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        with serving(tmp_path_factory.mktemp("traced")) as service:
            service.upload("flowers", FLOWERS)
            asked = request(display_name=SECRETS[1])
            asked.training_job.labels["team"] = SECRETS[2]
            made = service.training.CreateTrainingJob(asked, timeout=SECONDS, metadata=METADATA)
            ended = service.end(made.name)
            for bad in ("no-traceparent", f"00-{'0' * 32}-{CALLER}-01"):
                with pytest.raises(grpc.RpcError):
                    service.training.GetTrainingJob(
                        pb.GetTrainingJobRequest(name="jobs/nobody"), timeout=SECONDS, metadata=(("traceparent", bad),)
                    )
            with pytest.raises(grpc.RpcError):
                next(service.watch("jobs/nobody"))
        yield sink, ended


def test_a_callers_trace_goes_on(seen: tuple[Sink, job_pb.TrainingJob]) -> None:
    sink, job = seen
    (span,) = sink.of("CreateTrainingJob")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, CALLER)
    assert span.name == "chainrule.v1.TrainingService/CreateTrainingJob"
    assert span.kind == Span.SPAN_KIND_SERVER
    assert attributes(span) == {
        "rpc.system": "grpc",
        "rpc.service": "chainrule.v1.TrainingService",
        "rpc.method": "CreateTrainingJob",
        "rpc.grpc.status_code": "0",
        "chainrule.call_id": "mine-1",
        "chainrule.job": job.name,
    }
    assert sink.resources[0]["service.name"] == "chainrule"
    assert sink.resources[0]["deployment.environment.name"] == "test"


def test_a_trace_that_is_none_is_not_continued(seen: tuple[Sink, job_pb.TrainingJob]) -> None:
    spans = [span for span in seen[0].of("GetTrainingJob") if attributes(span)["rpc.grpc.status_code"] == "5"]
    assert len(spans) == 2
    assert not any(span.parent_span_id for span in spans)
    assert len({span.trace_id for span in spans}) == 2
    # That there is no such job is the caller's mistake.
    assert {span.status.code for span in spans} == {Status.STATUS_CODE_UNSET}


def test_every_kind_of_call_has_one_span(seen: tuple[Sink, job_pb.TrainingJob]) -> None:
    codes = {
        method: sorted(attributes(span)["rpc.grpc.status_code"] for span in seen[0].of(method))
        for method in ("UploadDataset", "CreateTrainingJob", "WatchTrainingJob", "GetTrainingJob")
    }
    assert codes == {
        "UploadDataset": ["0"],
        "CreateTrainingJob": ["0"],
        "WatchTrainingJob": ["0", "5"],
        "GetTrainingJob": ["0", "5", "5"],
    }


def test_a_job_has_a_span_from_its_creation_to_its_end(seen: tuple[Sink, job_pb.TrainingJob]) -> None:
    sink, job = seen
    (span,) = sink.jobs
    (creating,) = sink.of("CreateTrainingJob")
    assert [(link.trace_id, link.span_id) for link in span.links] == [(creating.trace_id, creating.span_id)]
    assert span.trace_id != creating.trace_id
    assert [event.name for event in span.events] == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]
    times = [event.time_unix_nano for event in span.events]
    assert [span.start_time_unix_nano, *times, span.end_time_unix_nano] == sorted(
        [*times, span.start_time_unix_nano, span.end_time_unix_nano]
    )
    assert span.start_time_unix_nano == pytest.approx(job.create_time.ToNanoseconds(), abs=2e3)
    assert span.end_time_unix_nano == pytest.approx(job.end_time.ToNanoseconds(), abs=2e3)
    assert attributes(span) == {
        "chainrule.job": job.name,
        "chainrule.job.state": "SUCCEEDED",
        "chainrule.job.workers": str(job.spec.workers),
        "chainrule.job.steps": str(job.progress.step),
    }


def test_nothing_of_what_was_sent_is_in_a_span(seen: tuple[Sink, job_pb.TrainingJob]) -> None:
    sent = "\n".join(map(str, seen[0].spans))
    assert "chainrule.call_id" in sent
    assert [secret for secret in SECRETS if secret in sent] == []


def test_the_span_of_a_job_outlives_its_coordinator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as (sink, endpoint):
        monkeypatch.setenv(ENDPOINT, endpoint)
        with serving(tmp_path) as service:
            service.upload("flowers", FLOWERS)
            made = service.create(epochs=100_000)
            await_state(service, made.name, job_pb.TrainingJob.RUNNING)
        assert sink.jobs == []
        with serving(tmp_path) as service:
            await_state(service, made.name, job_pb.TrainingJob.RUNNING)
            cancelled = service.cancel(made.name)
            service.training.UpdateTrainingJob(update(made.name), timeout=SECONDS)
    (span,) = sink.jobs
    names = [event.name for event in span.events]
    assert names == ["QUEUED", "STARTING", "RUNNING", "QUEUED", "STARTING", "RUNNING", "CANCELLED"]
    assert span.start_time_unix_nano == pytest.approx(cancelled.create_time.ToNanoseconds(), abs=2e3)
    assert {attributes(each)["chainrule.job"] for each in sink.of("CancelTrainingJob")} == {made.name}


def test_a_collector_that_does_not_answer_delays_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{mute.getsockname()[1]}")
        for name, value in (("MAX_QUEUE_SIZE", "4"), ("MAX_EXPORT_BATCH_SIZE", "2"), ("SCHEDULE_DELAY", "10")):
            monkeypatch.setenv(f"OTEL_BSP_{name}", value)
        with serving(tmp_path) as service:
            for _ in range(100):
                service.training.ListTrainingJobs(pb.ListTrainingJobsRequest(), timeout=1.0)
            began = time.monotonic()
        # The exporter alone would wait for ten seconds for every two calls.
        assert time.monotonic() - began < 9.0
    assert [thread.name for thread in threading.enumerate() if "Otel" in thread.name] == []


@pytest.mark.parametrize(
    ("environment", "asks"),
    [
        ({}, ""),
        ({ENDPOINT: ""}, ""),
        ({ENDPOINT: "http://collector:4317"}, ENDPOINT),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4317"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        ({ENDPOINT: "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ENDPOINT),
        ({ENDPOINT: "http://c:4317", "OTEL_SDK_DISABLED": "true"}, ""),
        ({ENDPOINT: "http://c:4317", "OTEL_TRACES_EXPORTER": "none"}, ""),
    ],
    ids=str,
)
def test_there_are_traces_only_if_an_endpoint_is_set(environment: dict[str, str], asks: str) -> None:
    assert wanted(environment) == asks


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", "traces are sent by gRPC alone"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "soon"),
    ],
)
def test_what_cannot_be_set_up_is_said_at_the_start(
    name: str, value: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:4317")
    monkeypatch.setenv(name, value)
    assert says in refused(tmp_path)


def test_without_the_extra_the_start_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:4317")
    for name in [each for each in sys.modules if each.startswith(("opentelemetry", "service.tracing.spans"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    said = refused(tmp_path)
    assert ENDPOINT in said
    assert "pip install 'chainrule[otel]'" in said


async def refuse(directory: Path) -> None:
    given: dict[str, Any] = {"data_dir": directory, "listen": "127.0.0.1:0", "metrics_listen": "127.0.0.1:0"}
    async with coordinator(Settings(**given), LocalCluster()):
        pass


def refused(directory: Path) -> str:
    """What a start says that must fail."""
    with pytest.raises(Refused) as caught:
        asyncio.run(refuse(directory))
    return str(caught.value)


def await_state(service: Service, name: str, state: job_pb.TrainingJob.State.ValueType) -> None:
    for _ in service.watch(name):
        if service.get(name).state == state:
            return


def update(name: str) -> pb.UpdateTrainingJobRequest:
    return pb.UpdateTrainingJobRequest(training_job=job_pb.TrainingJob(name=name, display_name="changed at the end"))
