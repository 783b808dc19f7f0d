"""A coordinator that is told to stop: it says so, begins nothing new, and its jobs and watchers lose nothing."""

import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from chainrule import Client
from chainrule.inference import open_inference_pb2, open_inference_pb2_grpc
from chainrule.v1.training_event_pb2 import TrainingEvent
from chainrule.v1.training_job_pb2 import TrainingJob
from tests.api.running import FLOWERS, SECONDS, Service, refusal, request, serving
from tests.unit.service.unreliable import GatedCluster


def not_serving(service: Service) -> bool:
    """Waits until the health service says so, as whoever spreads calls would."""
    stub = health_pb2_grpc.HealthStub(service.channel)
    answers = stub.Watch(health_pb2.HealthCheckRequest(), timeout=SECONDS)
    return any(answer.status == health_pb2.HealthCheckResponse.NOT_SERVING for answer in answers)


def retry_seconds(error: Any) -> float:
    """When an error says to come again."""
    status: Any = rpc_status.from_call(error)
    info = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    return float(info.retry_delay.ToTimedelta().total_seconds())


def test_it_says_so_and_begins_nothing_new_while_jobs_write_their_checkpoints(
    gated: Service, cluster: GatedCluster
) -> None:
    job = gated.create(epochs=3)
    watch = gated.watch(job.name)
    assert any(update.event.state_changed.state == TrainingJob.RUNNING for update in watch)
    assert cluster.entered.wait(SECONDS)
    gated.stop()
    assert not_serving(gated)  # while the job is in the middle of a step, and so for as long as this test likes
    ready = open_inference_pb2_grpc.GRPCInferenceServiceStub(gated.channel).ServerReady
    assert not ready(open_inference_pb2.ServerReadyRequest(), timeout=SECONDS).ready
    for call in (lambda: gated.create(), lambda: gated.cancel(job.name), lambda: gated.upload("more", FLOWERS)):
        found = refusal(call)
        assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "COORDINATOR_STOPPING")
    with pytest.raises(grpc.RpcError) as refusing:
        gated.training.CreateTrainingJob(request(), timeout=SECONDS)
    assert 0 < retry_seconds(refusing.value) <= 30
    assert gated.get(job.name).state == TrainingJob.RUNNING
    cluster.gate.set()
    found = refusal(lambda: list(watch))  # a plain end would mean that there are no more events
    assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "COORDINATOR_STOPPING")


def test_a_client_s_watch_goes_on_when_the_next_one_is_there(tmp_path: Path) -> None:
    cluster = GatedCluster(slots=4)
    seen: list[TrainingEvent] = []
    running = threading.Event()

    def watch(client: Client, name: str) -> None:
        for update in client.watch(name):
            if isinstance(update, TrainingEvent):
                seen.append(update)
                if update.state_changed.state == TrainingJob.RUNNING:
                    running.set()

    with serving(tmp_path, cluster, checkpoint_seconds=0.0) as service:
        address = service.addresses["grpc"]
        service.upload("flowers", FLOWERS)
        name = service.create(epochs=3).name
        client = Client(address)
        watcher = threading.Thread(target=watch, args=(client, name), daemon=True)
        watcher.start()
        assert running.wait(SECONDS)
        assert cluster.entered.wait(SECONDS)
        cluster.let_through(3)
        service.stop()
        assert not_serving(service)
        cluster.let_through(1)
    with client, serving(tmp_path, checkpoint_seconds=0.0, listen=address) as service:
        ended = service.end(name)
        watcher.join(SECONDS)
        assert not watcher.is_alive()
    assert ended.state == TrainingJob.SUCCEEDED
    assert [event.number for event in seen] == list(range(1, ended.last_event + 1))
    queued = [event.state_changed.reason for event in seen if event.state_changed.state == TrainingJob.QUEUED]
    assert queued == ["", "goes on when the coordinator, which was stopped, starts again"]


def test_a_client_s_job_and_upload_are_taken_by_the_next_one(tmp_path: Path) -> None:
    cluster = GatedCluster(slots=4)
    made: list[str] = []
    with serving(tmp_path, cluster, checkpoint_seconds=0.0) as service:
        address = service.addresses["grpc"]
        service.upload("flowers", FLOWERS)
        held = service.create(epochs=3).name
        client = Client(address)
        calls = (
            lambda: made.append(client.create_job(request(epochs=1).training_job, request_id="once").name),
            lambda: made.append(client.upload_dataset(FLOWERS, "more").name),
        )
        assert client.get_job(held).name == held
        assert cluster.entered.wait(SECONDS)
        service.stop()
        assert not_serving(service)
        threads = [threading.Thread(target=call, daemon=True) for call in calls]
        for thread in threads:
            thread.start()
        threads[0].join(0.7)  # by now both have been refused
        assert not made
        cluster.gate.set()
    with client, serving(tmp_path, checkpoint_seconds=0.0, listen=address):
        for thread in threads:
            thread.join(SECONDS)
        job = client.create_job(request(epochs=1).training_job, request_id="once")
        assert sorted(made) == sorted(["datasets/more", job.name])
        assert len(list(client.jobs())) == 2
