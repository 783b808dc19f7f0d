"""The address that Prometheus asks: one page over HTTP, which nobody can make dear.

However many ask and however slowly they read, there are so many threads and no more, each for so many seconds. And
however often they ask, making the page takes a tenth of the time at the most: beyond that an old one is handed out.
"""

import gzip
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

import structlog

from service.access.certificates import Certificates, renewed_context
from service.access.door import Door
from service.access.watched import Watched
from service.errors import Unauthenticated

PATH = "/metrics"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

MOST_REQUESTS = 8
"""How many are answered at a time; more are told to come back."""

ANSWER_SECONDS = 10.0
"""How long a connection may last, from its first byte to the page's last."""

LOOK_SECONDS = 0.1
"""How often to look whose time is over, and whether to end."""

SHARE = 0.1
"""Which share of the time goes into pages in the long run, at the most."""

BURST_SECONDS = 0.5
"""How much may go into pages at once; more than an honest scrape ever takes, so that it gets a new one."""

_BUSY = (
    b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Type: text/plain\r\n\r\ntoo many scrapes at once\n"
)
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Made:
    plain: bytes
    packed: bytes


class Page:
    """What is to be scraped: the texts of all sources, made when asked for."""

    def __init__(self, sources: Sequence[Callable[[], str]]) -> None:
        self._sources = sources
        self._lock = threading.Lock()
        self._made: _Made | None = None
        self._spent = 0.0
        """Seconds that went into pages and have not been made up for, as of `_since`."""
        self._since = time.monotonic()

    def read(self, *, packed: bool) -> bytes:
        """The page, in gzip if it is to be packed."""
        with self._lock:
            began = time.monotonic()
            self._spent = max(self._spent - SHARE * (began - self._since), 0.0)
            self._since = began
            if self._made is None or self._spent < BURST_SECONDS:
                plain = "".join(source() for source in self._sources).encode()
                self._made = _Made(plain, gzip.compress(plain, compresslevel=1))
                self._spent += time.monotonic() - began
            return self._made.packed if packed else self._made.plain


class _Answer(BaseHTTPRequestHandler):
    """Answers one request."""

    server: "_Server"
    server_version = "chainrule"
    sys_version = ""
    timeout = ANSWER_SECONDS

    def do_GET(self) -> None:
        """Sends the page."""
        try:
            self.server.door.principal(self.headers.get_all("Authorization", []))
        except Unauthenticated as error:
            self._send(HTTPStatus.UNAUTHORIZED, f"{error.message}\n".encode(), ("WWW-Authenticate", "Bearer"))
            return
        if self.path.partition("?")[0] != PATH:
            self._send(HTTPStatus.NOT_FOUND, f"there is {PATH} here, and nothing else\n".encode())
            return
        packed = "gzip" in self.headers.get("Accept-Encoding", "")
        try:
            page = self.server.page.read(packed=packed)
        except Exception:
            _log.exception("the metrics can't be read")
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, b"an error in the service itself; its log says more\n")
            return
        self._send(HTTPStatus.OK, page, *([("Content-Encoding", "gzip")] if packed else []))

    def _send(self, status: HTTPStatus, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (("Content-Type", CONTENT_TYPE), ("Content-Length", str(len(body))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name it has in the standard library
        """Scrapes are no news."""


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Hands each connection to a thread, as long as there are not too many."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = MOST_REQUESTS

    def __init__(self, host: str, port: int, page: Page, door: Door) -> None:
        """Listens. Raises OSError."""
        # Whether this is IPv4 or IPv6, and what a name stands for.
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, _, _, _, (address, *_) = found[0]
        self.page = page
        self.door = door
        self._lock = threading.Lock()
        self._ends: dict[Any, float] = {}
        """When the time of each connection is over."""
        super().__init__((str(address), port), _Answer)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Starts a thread, or sends the client away."""
        with self._lock:
            has_room = len(self._ends) < MOST_REQUESTS
            if has_room:
                self._ends[request] = time.monotonic() + ANSWER_SECONDS
        if has_room:
            super().process_request(request, client_address)
        else:
            with suppress(OSError):
                request.setblocking(False)
                request.send(_BUSY)
            self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        """Makes room for the next one."""
        with self._lock:
            self._ends.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Now and then: ends the connections whose time is over, which wakes their threads."""
        now = time.monotonic()
        with self._lock:
            late = [request for request, end in self._ends.items() if now >= end]
        for request in late:
            with suppress(OSError):
                socket.socket.shutdown(request, socket.SHUT_RDWR)  # as it is, without a word of TLS

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone, or that was sent away, is nobody's error."""


@contextmanager
def metrics_endpoint(
    host: str,
    port: int,
    *sources: Callable[[], str],
    door: Door | None = None,
    certificates: Watched[Certificates] | None = None,
) -> Iterator[int]:
    """Serves what the sources say while the context is open, to whom the door lets in; gives the port.

    Raises OSError.
    """
    server = _Server(host, port, Page(sources), door or Door())
    if certificates:
        # Hands are shaken when the first byte is read, in the connection's own thread and time.
        server.socket = renewed_context(certificates).wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    thread = threading.Thread(target=server.serve_forever, args=(LOOK_SECONDS,), name="metrics", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
