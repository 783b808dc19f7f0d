"""Streams whose client takes nothing: they end, and nothing piles up for it."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc

from service.api.errors import ErrorInterceptor
from tests.api.running import SECONDS, refused

MESSAGE = bytes(100_000)
MOST = 1_000
"""A hundred megabytes: far more than lies on the way between two ends."""


def test_a_client_that_takes_nothing_is_given_up_and_told_to_come_back() -> None:
    ended = threading.Event()
    made: list[int] = []

    async def stream(_request: object, _context: object) -> AsyncIterator[bytes]:
        try:
            for number in range(MOST):
                made.append(number)
                yield MESSAGE
        finally:
            ended.set()

    def read_on(port: int) -> grpc.RpcError:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: Any = channel.unary_stream("/test.Slow/Read", bytes, bytes)(b"", timeout=SECONDS)
            assert next(call) == MESSAGE
            assert ended.wait(SECONDS)
            taken = 1
            try:
                for _ in call:
                    taken += 1
            except grpc.RpcError as error:
                assert taken <= len(made) < MOST
                return error
        raise AssertionError("it was not refused")

    async def run() -> grpc.RpcError:
        server = grpc.aio.server(interceptors=[ErrorInterceptor(write_seconds=0.3)])
        handler: Any = grpc.unary_stream_rpc_method_handler(stream, request_deserializer=bytes)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Slow", {"Read": handler}),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            return await asyncio.to_thread(read_on, port)
        finally:
            await server.stop(None)

    began = time.monotonic()
    found = refused(asyncio.run(run()))
    assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "SLOW_READER")
    assert time.monotonic() - began >= 0.3
