"""Calls that are begun and left as they are: whoever makes as many as there may be keeps nobody else out."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from chainrule.v1 import training_service_pb2 as pb
from service.access.door import Door
from service.access.limits import Limits
from service.api.errors import ErrorInterceptor
from service.api.guard import MOST_OF_AN_ADDRESS, MOST_OF_STRANGERS, Guard
from service.api.server import MOST_CALLS
from tests.api.principals import Metadata, bearer, write_tokens
from tests.api.running import SECONDS, Service, refused, serving
from tests.unit.service.unreliable import GatedCluster

MADE = MOST_CALLS + 100
OF_A_PRINCIPAL = 200
WATCH, CHECK = "/grpc.health.v1.Health/Watch", "/grpc.health.v1.Health/Check"
LIST = "/chainrule.v1.TrainingService/ListTrainingJobs"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """With tokens."""
    directory = tmp_path_factory.mktemp("guarded")
    (directory / "data").mkdir()
    tokens = write_tokens(directory)
    with serving(
        directory / "data", GatedCluster(), auth_tokens=tokens, concurrent_calls=OF_A_PRINCIPAL, calls_per_second=1e6
    ) as service:
        yield service


def _begun(channel: grpc.aio.Channel, path: str, metadata: Metadata) -> list[Any]:
    """As many calls as that, each with its headers sent and, of a watch, its message."""
    if path == WATCH:
        watch: Any = channel.unary_stream(path)
        return [watch(b"", metadata=metadata) for _ in range(MADE)]
    return [channel.stream_stream(path)(metadata=metadata) for _ in range(MADE)]


@pytest.mark.parametrize(
    ("path", "by", "stay", "others"),
    [
        # Those of strangers need no answer to be refused: nothing that would come of them is waited for.
        (LIST, (), 0, grpc.StatusCode.UNAUTHENTICATED),
        (LIST, bearer("reader"), OF_A_PRINCIPAL, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (CHECK, (), MOST_OF_AN_ADDRESS, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (WATCH, (), MOST_OF_AN_ADDRESS, grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
    ids=["stranger", "principal", "open to all", "watches open to all"],
)
def test_calls_that_are_begun_and_left(
    path: str, by: Metadata, stay: int, others: grpc.StatusCode, guarded: Service
) -> None:
    async def run() -> Counter[grpc.StatusCode]:
        async with grpc.aio.insecure_channel(guarded.addresses["grpc"]) as channel:
            calls = _begun(channel, path, by)
            codes: Counter[grpc.StatusCode] = Counter()
            for ended in asyncio.as_completed([call.code() for call in calls], timeout=SECONDS):
                codes[await ended] += 1
                if codes.total() == MADE - stay:
                    break
            call = guarded.training.ListTrainingJobs
            await asyncio.to_thread(call, pb.ListTrainingJobsRequest(), timeout=SECONDS, metadata=bearer("alice"))
            return codes

    codes = asyncio.run(run())
    # Of some calls that are refused before they are whole, this client says that they were cancelled.
    assert set(codes) <= {others, grpc.StatusCode.CANCELLED}
    assert codes[others] > 0.9 * (MADE - stay)


def test_strangers_leave_room_for_those_with_a_token() -> None:
    assert MOST_OF_AN_ADDRESS < MOST_OF_STRANGERS < MOST_CALLS


@pytest.mark.parametrize("is_ended", [False, True], ids=["nothing", "only an end"])
def test_a_call_without_its_message(is_ended: bool) -> None:
    seconds = 0.2 if not is_ended else SECONDS

    async def answer(_request: bytes, _context: object) -> bytes:
        raise AssertionError("it got that far")

    async def run() -> Any:
        guard = Guard(Door(), Limits(1e6, 10), None, arrival_seconds=seconds)
        server = grpc.aio.server(interceptors=[ErrorInterceptor(), guard])
        handler: Any = grpc.unary_unary_rpc_method_handler(answer, request_deserializer=bytes)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Late", {"Ask": handler}),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: Any = channel.stream_unary("/test.Late/Ask")(timeout=SECONDS)
            if is_ended:
                await call.done_writing()
            try:
                return await call
            except grpc.aio.AioRpcError as error:
                return error
            finally:
                await server.stop(None)

    found = refused(asyncio.run(run()))
    if is_ended:
        assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "NO_MESSAGE")
    else:
        assert (found.code, found.reason) == (grpc.StatusCode.ABORTED, "CALL_IDLE")
