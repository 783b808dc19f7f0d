"""Callers who ask for more than is good for others: what is refused, and that others don't notice."""

import socket
from contextlib import ExitStack
from typing import Any

import grpc
import pytest

from chainrule.v1 import training_service_pb2 as pb
from chainrule.v1 import training_service_pb2_grpc as training_grpc
from service.files import allow_files
from tests.api.running import SECONDS, Service, refusal

IDLE_CHANNELS = 1_000
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""With which a client's side of a connection begins: the preface, and settings that change nothing (RFC 9113)."""
EPOCHS = 400
ASKED = pb.ListTrainingJobsRequest()


@pytest.mark.parametrize(("size_bytes", "is_taken"), [(12 << 10, True), (17 << 10, False), (1 << 20, False)])
def test_metadata(size_bytes: int, is_taken: bool, shared: Service) -> None:
    def call() -> object:
        return shared.training.ListTrainingJobs(ASKED, timeout=SECONDS, metadata=(("x-large", "x" * size_bytes),))

    if is_taken:
        call()
    else:
        assert refusal(call).code == grpc.StatusCode.RESOURCE_EXHAUSTED
    shared.training.ListTrainingJobs(ASKED, timeout=SECONDS)


def test_a_compressed_bomb(shared: Service) -> None:
    """A message that is small on its way, and of which no more is unpacked than a message may have."""
    bomb = pb.GetTrainingJobRequest(name="x" * (32 << 20))
    address = shared.addresses["grpc"]
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(address, options, compression=grpc.Compression.Gzip) as channel:
        call: Any = channel.unary_unary("/chainrule.v1.TrainingService/GetTrainingJob")
        data = bomb.SerializeToString()
        found = refusal(lambda: call(data, timeout=SECONDS))
    assert found.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in found.message


def test_a_thousand_idle_channels(shared: Service) -> None:
    """Connections that say nothing, beside which calls are answered as ever."""
    allow_files(4 * IDLE_CHANNELS)
    host, _, port = shared.addresses["grpc"].rpartition(":")
    with ExitStack() as stack:
        for _ in range(IDLE_CHANNELS):
            connection = stack.enter_context(socket.create_connection((host, int(port)), SECONDS))
            connection.sendall(HTTP2_PREFACE)
        with grpc.insecure_channel(shared.addresses["grpc"]) as channel:
            call: Any = channel.unary_unary("/chainrule.v1.TrainingService/ListTrainingJobs")
            for _ in range(20):
                call(b"", timeout=2)


def test_slow_readers_of_a_watch(service: Service) -> None:
    """Whoever takes nothing holds up nobody, neither the job nor those who watch beside; and misses nothing."""
    # Windows that don't grow, so that the service really has to wait.
    options = [
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", 1_024),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    with ExitStack() as stack:
        channels = [stack.enter_context(grpc.insecure_channel(service.addresses["grpc"], options)) for _ in range(3)]
        name = service.create(epochs=EPOCHS, batch_size=32).name
        asked = pb.WatchTrainingJobRequest(name=name)
        slow = [training_grpc.TrainingServiceStub(each).WatchTrainingJob(asked, timeout=SECONDS) for each in channels]
        expected = service.events(name)
        assert len(expected) > EPOCHS
        assert [update.event for update in slow.pop() if update.HasField("event")] == expected
    # The service stops although the others never take anything, or its fixture fails.
