"""Server-sent events: how they look, and what becomes of readers who are too many, too slow, or gone."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import closing, contextmanager

import pytest
from aiohttp import web

from service.access.door import Door
from service.errors import Unavailable
from service.web.access import Entry
from service.web.streams import Streams, event

SECONDS = 10.0

Events = Callable[[], AsyncGenerator[str, None]]


@contextmanager
def serving(streams: Streams, events: Events) -> Iterator[int]:
    """A server with nothing but these streams; gives the port."""
    loop, stop, found = asyncio.new_event_loop(), asyncio.Event(), list[int]()
    ready = threading.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        return await streams.serve(request, events())

    async def run() -> None:
        app = web.Application(middlewares=[Entry(Door(), local=True).middleware])
        app.add_routes([web.get("/", answer)])
        app.on_shutdown.append(streams.close)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        found.append(runner.addresses[0][1])
        ready.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.Runner(loop_factory=lambda: loop).run(run()))
    thread.start()
    try:
        assert ready.wait(SECONDS)
        yield found[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(SECONDS)
        loop.close()
        assert not thread.is_alive()


@contextmanager
def asking(port: int, buffer: int | None = None) -> Iterator[socket.socket]:
    """A connection on which the stream was asked for."""
    with closing(socket.socket()) as reader:
        if buffer is not None:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        reader.settimeout(SECONDS)
        reader.connect(("127.0.0.1", port))
        reader.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        yield reader


def read_until(reader: socket.socket, end: bytes) -> bytes:
    seen = b""
    while end not in seen:
        data = reader.recv(65536)
        assert data, seen
        seen += data
    return seen


async def three() -> AsyncGenerator[str, None]:
    for number in (1, 2, 3):
        yield event("event", json.dumps({"number": number}), number)


async def endless() -> AsyncGenerator[str, None]:
    yield event("event", "{}")
    await asyncio.Event().wait()


def test_events_are_sent_as_browsers_read_them() -> None:
    with serving(Streams(), three) as port, asking(port) as reader:
        seen = read_until(reader, b"\r\n0\r\n\r\n")
    assert b"Content-Type: text/event-stream" in seen
    for number in b"123":
        assert b'id: %c\nevent: event\ndata: {"number": %c}\n\n' % (number, number) in seen
    assert event("progress", "{}") == "event: progress\ndata: {}\n\n"


def test_silence_is_broken_by_heartbeats() -> None:
    with serving(Streams(heartbeat_seconds=0.05), endless) as port, asking(port) as reader:
        read_until(reader, b":\n\n\r\n3\r\n:\n\n")


def test_no_more_readers_than_there_may_be_and_room_again_when_one_leaves() -> None:
    with serving(Streams(most=2, heartbeat_seconds=0.05), endless) as port:
        with asking(port) as first, asking(port) as second:
            read_until(first, b"data: {}")
            read_until(second, b"data: {}")
            with asking(port) as third:
                refused = read_until(third, b"}}")
            assert refused.startswith(b"HTTP/1.1 503 ")
            assert b"2 live views are open" in refused
        for _ in range(100):
            with asking(port) as reader:
                if b"200 OK" in read_until(reader, b"\r\n\r\n"):
                    return
        raise AssertionError("nobody was let in again")


def test_a_reader_that_takes_nothing_is_dropped_and_nothing_piles_up() -> None:
    made, gone = list[int](), threading.Event()

    async def torrent() -> AsyncGenerator[str, None]:
        try:
            while True:
                made.append(len(made))
                yield event("event", "x" * 1_000_000)
        finally:
            gone.set()

    with serving(Streams(write_seconds=0.2), torrent) as port, asking(port, buffer=4096):
        assert gone.wait(SECONDS)
    assert len(made) < 20  # what the system's own buffers hold


def test_a_reader_that_leaves_is_noticed() -> None:
    gone = threading.Event()

    async def quiet() -> AsyncGenerator[str, None]:
        try:
            yield event("event", "{}")
            await asyncio.Event().wait()
        finally:
            gone.set()

    with serving(Streams(), quiet) as port:
        with asking(port) as reader:
            read_until(reader, b"data: {}")
        assert gone.wait(SECONDS)


@pytest.mark.parametrize("after", [0, 1])
def test_an_error_is_told_before_the_first_event_and_ends_the_stream_after_it(after: int) -> None:
    async def failing() -> AsyncGenerator[str, None]:
        for _ in range(after):
            yield event("event", "{}")
        raise Unavailable("is stopping", "STOPPING")

    with serving(Streams(), failing) as port, asking(port) as reader:
        seen = read_until(reader, b"\r\n0\r\n\r\n" if after else b"}}")
    assert seen.startswith(b"HTTP/1.1 200 OK" if after else b"HTTP/1.1 503 ")
    assert (b'"reason": "STOPPING"' in seen) == (after == 0)


def test_closing_ends_every_stream_at_once() -> None:
    with serving(Streams(), endless) as port, asking(port) as reader:
        read_until(reader, b"data: {}")
    # Leaving the server's context waits for it to end, and it must not take long.
