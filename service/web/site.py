"""The web page: a few files, and what they show, in JSON. Nothing can be changed through it."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import cast

from aiohttp import web

from chainrule.v1 import training_service_pb2 as pb
from service.access.certificates import Certificates, renewed_context
from service.access.door import Door
from service.access.exposure import is_loopback
from service.access.watched import Watched
from service.api.watching import Watching
from service.errors import InvalidArgument
from service.jobs.jobs import Jobs
from service.settings import host_and_port
from service.web.access import Entry, protect
from service.web.overview import FRESH_SECONDS, Overview, in_line
from service.web.streams import Streams, event
from service.wire.names import require_name

FILES = Path(__file__).parent / "static"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

MOST_CONNECTIONS = 256
IDLE_SECONDS = 20.0
"""A connection that doesn't ask anything, or not in full, is closed after so long."""

HANDSHAKE_SECONDS = 10.0
CLOSING_SECONDS = 2.0


@asynccontextmanager
async def serving(
    address: str,
    jobs: Jobs,
    watching: Watching,
    door: Door,
    certificates: Watched[Certificates] | None = None,
) -> AsyncIterator[int]:
    """Serves the page at HOST:PORT, to whom the door lets in, while the context is open.

    Gives the port. Raises OSError if it can't listen there.
    """
    host, port = host_and_port(address)
    loop = asyncio.get_running_loop()
    log = logging.getLogger("aiohttp.server")
    log.disabled = True  # it would fill our log with what strangers send
    runner = web.AppRunner(
        _Site(jobs, watching, Entry(door, local=is_loopback(host))).app,
        access_log=None,
        logger=log,
        handler_cancellation=True,
        keepalive_timeout=IDLE_SECONDS,
        shutdown_timeout=CLOSING_SECONDS,
    )
    await runner.setup()
    try:
        requests = cast(web.Server, runner.server)  # there since setup
        context = renewed_context(certificates) if certificates else None
        server = await loop.create_server(
            lambda: _Entrance(requests),
            host.strip("[]"),
            port,
            ssl=context,
            ssl_handshake_timeout=HANDSHAKE_SECONDS if context else None,
        )
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
    finally:
        await runner.cleanup()


class _Entrance(asyncio.Protocol):
    """Hands a connection on, or closes it if there are too many."""

    def __init__(self, requests: web.Server) -> None:
        self._requests = requests

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if len(self._requests.connections) >= MOST_CONNECTIONS:
            transport.close()
            return
        protocol = self._requests()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


class _Site:
    """What is answered. The files are read once: no path of a request meets the disk."""

    def __init__(self, jobs: Jobs, watching: Watching, entry: Entry) -> None:
        self._jobs = jobs
        self._watching = watching
        self._overview = Overview(jobs, watching)
        self._streams = Streams()
        self._files = {path.name: path.read_bytes() for path in FILES.iterdir() if path.suffix in TYPES}
        self.app = web.Application(middlewares=[entry.middleware])
        self.app.on_response_prepare.append(protect)
        self.app.on_shutdown.append(self._streams.close)
        self.app.add_routes(
            [
                web.get("/", self._front),
                web.get("/jobs/{id}", self._page),
                web.get("/static/{name}", self._static),
                web.get("/api/jobs", self._list),
                web.get("/api/jobs/stream", self._follow_all),
                web.get("/api/jobs/{id}", self._get),
                web.get("/api/jobs/{id}/stream", self._follow),
            ]
        )

    async def _front(self, request: web.Request) -> web.Response:  # noqa: ARG002
        return self._file("index.html")

    async def _page(self, request: web.Request) -> web.Response:  # noqa: ARG002
        return self._file("job.html")

    async def _static(self, request: web.Request) -> web.Response:
        return self._file(request.match_info["name"])

    def _file(self, name: str) -> web.Response:
        if name not in self._files:
            raise web.HTTPNotFound
        return web.Response(body=self._files[name], content_type=TYPES[Path(name).suffix], charset="utf-8")

    async def _list(self, request: web.Request) -> web.Response:  # noqa: ARG002
        return web.json_response(text=await self._overview.text())

    async def _get(self, request: web.Request) -> web.Response:
        job = self._jobs.get(_job_id(request))
        return web.json_response(text=await asyncio.to_thread(lambda: in_line(self._watching.describe(job))))

    async def _follow_all(self, request: web.Request) -> web.StreamResponse:
        return await self._streams.serve(request, self._overviews())

    async def _follow(self, request: web.Request) -> web.StreamResponse:
        return await self._streams.serve(request, self._updates(_job_id(request), _after(request)))

    async def _overviews(self) -> AsyncGenerator[str, None]:
        """The overview, and again whenever it has changed."""
        shown = None
        while True:
            if (text := await self._overview.text()) != shown:
                yield event("jobs", text)
                shown = text
            await asyncio.sleep(FRESH_SECONDS)

    async def _updates(self, job_id: str, after: int) -> AsyncGenerator[str, None]:
        """A job's events, numbered, and its progress; "end" when nothing more can come."""
        async with aclosing(self._watching.watch(job_id, after)) as updates:
            async for update in updates:
                if not update.HasField("heartbeat"):  # the stream has its own
                    # A look at a large network takes milliseconds to write, which others needn't wait for.
                    yield await asyncio.to_thread(_update, update)
        yield event("end", "{}")


def _update(update: pb.WatchTrainingJobResponse) -> str:
    if update.HasField("progress"):
        return event("progress", in_line(update.progress))
    return event("event", in_line(update.event), update.event.number)


def _job_id(request: web.Request) -> str:
    """Raises InvalidArgument."""
    return require_name(f"jobs/{request.match_info['id']}", "jobs")


def _after(request: web.Request) -> int:
    """The last event that the browser has had: it says so when it comes back. Raises InvalidArgument."""
    said = request.headers.get("Last-Event-ID") or request.query.get("after", "0")
    if not (said.isascii() and said.isdecimal() and len(said) < 19):
        raise InvalidArgument.of("after", f"is {said[:100]!r}; must be the number of an event")
    return int(said)
