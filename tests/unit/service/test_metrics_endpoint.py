"""The address that Prometheus asks, and those who mean it no good."""

import gzip
import http.client
import itertools
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from service.metrics import endpoint
from service.metrics.endpoint import BURST_SECONDS, MOST_REQUESTS, SHARE, Page, metrics_endpoint

SECONDS = 10.0


def get(port: int, path: str = "/metrics", **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as response:  # noqa: S310
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def eventually(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def idle(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Connections on which nothing is asked."""
    with ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection(("127.0.0.1", port), SECONDS)) for _ in range(count)]


def test_it_is_served() -> None:
    with metrics_endpoint("127.0.0.1", 0, lambda: "a 1\n", lambda: "b 2\n") as port:
        assert get(port) == (200, b"a 1\nb 2\n")
        status, packed = get(port, **{"Accept-Encoding": "gzip"})
        assert (status, gzip.decompress(packed)) == (200, b"a 1\nb 2\n")
        assert get(port, "/other")[0] == 404
        with pytest.raises(OSError, match="in use"), metrics_endpoint("127.0.0.1", port, lambda: ""):
            pass


def test_it_says_what_it_is_and_not_more() -> None:
    with metrics_endpoint("127.0.0.1", 0, lambda: "a 1\n") as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        response.read()
        connection.close()
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "Python" not in str(response.headers)


def test_an_error_gives_nothing_away() -> None:
    def broken() -> str:
        raise RuntimeError("secret")

    with metrics_endpoint("127.0.0.1", 0, broken) as port:
        status, body = get(port)
    assert status == 500
    assert b"secret" not in body


def test_a_flood_of_scrapes_cannot_have_the_service_do_nothing_else() -> None:
    taken: list[float] = []

    def slow() -> str:
        began = time.monotonic()
        time.sleep(0.05)
        taken.append(time.monotonic() - began)
        return "a 1\n"

    page = Page([slow])
    began = time.monotonic()
    while time.monotonic() < began + 1.5:
        page.read(packed=False)
    assert sum(taken[:-1]) <= BURST_SECONDS + SHARE * (time.monotonic() - began)
    assert len(taken) >= 2


def test_an_honest_scrape_gets_what_is_so_now() -> None:
    count = itertools.count()
    page = Page([lambda: f"a {next(count)}\n"])
    assert [page.read(packed=False) for _ in range(3)] == [b"a 0\n", b"a 1\n", b"a 2\n"]


def test_too_many_at_once_are_sent_away_and_the_next_is_served() -> None:
    with metrics_endpoint("127.0.0.1", 0, lambda: "a 1\n") as port:
        with idle(port, MOST_REQUESTS), idle(port, 1) as (refused,):
            refused.settimeout(SECONDS)
            assert refused.recv(1000).startswith(b"HTTP/1.0 503 ")
        eventually(lambda: get(port)[0] == 200)


def test_nobody_holds_a_connection_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by saying nothing, nor a byte now and then, nor by reading nothing."""
    monkeypatch.setattr(endpoint, "ANSWER_SECONDS", 0.3)
    large = "a" * (64 << 20)
    with metrics_endpoint("127.0.0.1", 0, lambda: large) as port, idle(port, MOST_REQUESTS) as connections:
        for connection in connections[::2]:
            connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        trickled = threading.Event()

        def trickle() -> None:
            while not trickled.wait(0.05):
                try:
                    connections[1].sendall(b"G")
                except OSError:
                    return

        thread = threading.Thread(target=trickle)
        thread.start()
        eventually(lambda: get(port, "/other")[0] == 404)
        trickled.set()
        thread.join(SECONDS)
