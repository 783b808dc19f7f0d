"""Server-sent events: responses that go on for as long as somebody reads them.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import cast

from aiohttp import web

from service.errors import ResourceExhausted, ServiceError

MOST_STREAMS = 64
"""How many may be open at once."""

WRITE_SECONDS = 10.0
"""A reader that takes nothing for so long is dropped."""

HEARTBEAT_SECONDS = 15.0
"""A stream that has nothing to tell for so long says so, and finds out whether anyone is still there."""

HEARTBEAT = ":\n\n"

BEGINNING = "retry: 1000\n\n"
"""After how many milliseconds a browser comes back when the connection breaks."""


def event(name: str, data: str, number: int | None = None) -> str:
    """An event as it is sent; `data` is JSON in one line. A browser that comes back tells the last `number` it had."""
    identity = "" if number is None else f"id: {number}\n"
    return f"{identity}event: {name}\ndata: {data}\n\n"


class Streams:
    """All that are open."""

    def __init__(
        self,
        most: int = MOST_STREAMS,
        write_seconds: float = WRITE_SECONDS,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._most = most
        self._write_seconds = write_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._readers: set[asyncio.Task[object]] = set()

    async def serve(self, request: web.Request, events: AsyncGenerator[str, None]) -> web.StreamResponse:
        """Sends events, of which there is at least one, until they end, or their reader is gone or too slow.

        Raises ResourceExhausted if too many streams are open, and whatever keeps the first event from coming.
        """
        async with aclosing(events):
            if len(self._readers) >= self._most:
                raise ResourceExhausted(
                    f"{self._most} live views are open, the most there may be; close some", "TOO_MANY_STREAMS"
                )
            reader = cast(asyncio.Task[object], asyncio.current_task())
            self._readers.add(reader)
            try:
                first = await anext(events)
                response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
                await response.prepare(request)
                with suppress(ConnectionError):
                    await self._write(request, response, BEGINNING + first)
                    await self._pass_on(request, response, events)
                return response
            finally:
                self._readers.discard(reader)

    async def close(self, app: web.Application) -> None:  # noqa: ARG002
        """Ends them all; browsers come back by themselves."""
        for reader in list(self._readers):
            reader.cancel()

    async def _pass_on(
        self, request: web.Request, response: web.StreamResponse, events: AsyncGenerator[str, None]
    ) -> None:
        """Writes each event when the one before is on its way, and heartbeats between them."""
        while True:
            following = asyncio.ensure_future(anext(events))
            try:
                while not (await asyncio.wait({following}, timeout=self._heartbeat_seconds))[0]:
                    await self._write(request, response, HEARTBEAT)
                text = following.result()
            except (StopAsyncIteration, ServiceError):
                return  # after an error too: the browser comes back, and is then told
            finally:
                if following.cancel():
                    with suppress(asyncio.CancelledError):
                        await following
            await self._write(request, response, text)

    async def _write(self, request: web.Request, response: web.StreamResponse, text: str) -> None:
        """Waits until there is room for it, so that nothing piles up here. Raises ConnectionError."""
        try:
            async with asyncio.timeout(self._write_seconds):
                await response.write(text.encode())
        except TimeoutError:
            if request.transport:
                request.transport.abort()
            raise ConnectionAbortedError from None
