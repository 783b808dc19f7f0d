"""The web page as a browser's requests meet it: who is let in, what is told, and how much of it."""

import base64
import http.client
import json
import re
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme
from pydantic import ValidationError

from chainrule.v1 import training_job_pb2 as job_pb
from service.settings import Settings
from service.web.site import FILES, MOST_CONNECTIONS
from tests.api.principals import TOKENS, write_tokens
from tests.api.running import FLOWERS, SECONDS, Service, serving

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Server": "chainrule",
}

PATHS = {
    "/": 200,
    "/jobs/whatever": 200,
    "/static/style.css": 200,
    "/static/nothing.js": 404,
    "/static/..%2fsite.py": 404,
    "/static/%2e%2e/site.py": 404,
    "/nothing": 404,
    "/api/jobs": 200,
    "/api/jobs/nothing": 404,
    "/api/jobs/nothing/stream": 404,
    "/api/jobs/A%0Ab": 400,
}


class Answer:
    """To one request, closed at once."""

    def __init__(self, service: Service, path: str, method: str = "GET", **headers: str) -> None:
        with closing(http.client.HTTPConnection(urlsplit(service.addresses["web"]).netloc, timeout=SECONDS)) as asked:
            asked.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
            response = asked.getresponse()
            self.status, self.headers = response.status, response.headers
            self.body = response.read() if "stream" not in self.headers.get("Content-Type", "") else b""
            self.text = self.body.decode()

    @property
    def reason(self) -> str:
        return str(json.loads(self.text)["error"]["reason"])


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("data"), web_listen="127.0.0.1:0") as service:
        service.upload("flowers", FLOWERS)
        yield service


def stream(service: Service, path: str, **headers: str) -> list[tuple[str, int | None, Any]]:
    """A stream's events to its end: the name, the number, the data."""
    with closing(http.client.HTTPConnection(urlsplit(service.addresses["web"]).netloc, timeout=SECONDS)) as asked:
        asked.request("GET", path, headers={name.replace("_", "-"): text for name, text in headers.items()})
        response = asked.getresponse()
        assert response.status == 200
        text = response.read().decode()
    assert text.startswith("retry: 1000\n\n")
    events = []
    for block in text.split("\n\n")[1:-1]:
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        number = int(fields["id"]) if "id" in fields else None
        events.append((fields["event"], number, json.loads(fields["data"])))
    return events


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_keeps_the_browser_within_bounds(path: str, web: Service) -> None:
    answer = Answer(web, path)
    assert answer.status == PATHS[path]
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"


@pytest.mark.parametrize("host", ["localhost", "localhost:9", "127.0.0.1", "127.0.0.1:8080", "[::1]:80", "127.9.9.9"])
def test_hosts_that_are_this_machine(host: str, web: Service) -> None:
    assert Answer(web, "/api/jobs", Host=host).status == 200


@pytest.mark.parametrize(
    "host", ["attacker.example", "localhost.attacker.example", "10.0.0.1", "", "127.0.0.1@x", "[::", "0"]
)
def test_hosts_that_are_not(host: str, web: Service) -> None:
    for path in ("/", "/api/jobs", "/static/style.css"):
        answer = Answer(web, path, Host=host)
        assert (answer.status, answer.reason) == (421, "WRONG_HOST")


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_pages_of_other_sites_get_nothing_but_the_way_here(site: str, web: Service) -> None:
    for path in ("/api/jobs", "/api/jobs/stream", "/static/jobs.js"):
        answer = Answer(web, path, Sec_Fetch_Site=site)
        assert (answer.status, answer.reason) == (403, "OTHER_SITE")
    assert Answer(web, "/", Sec_Fetch_Site=site).status == 200  # a link that someone follows


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_changed(method: str, web: Service) -> None:
    for path in ("/", "/api/jobs", "/api/jobs/stream", "/static/jobs.js"):
        answer = Answer(web, path, method)
        assert (answer.status, answer.reason) == (405, "METHOD_NOT_ALLOWED")
        assert answer.headers["Allow"] == "GET, HEAD"


def test_a_job_is_told_as_clients_are_told(web: Service) -> None:
    job = web.end(web.create(display_name="</script><b>hostile</b>").name)
    found = json.loads(Answer(web, f"/api/{job.name}").text)
    assert (found["name"], found["displayName"], found["state"]) == (job.name, job.display_name, "SUCCEEDED")
    assert found["spec"]["epochs"] == 3
    events = stream(web, f"/api/{job.name}/stream")
    assert [number for _, number, _ in events] == [*range(1, job.last_event + 1), None]
    assert [data["epochCompleted"]["epoch"] for _, _, data in events if "epochCompleted" in data] == [1, 2, 3]
    assert events[-1] == ("end", None, {})
    for seen in (1, job.last_event):
        assert stream(web, f"/api/{job.name}/stream", Last_Event_ID=str(seen)) == events[seen:]
        assert stream(web, f"/api/{job.name}/stream?after={seen}") == events[seen:]
    for after in ("-1", "x", "1.5", str(2**63), "9" * 5000, str(job.last_event + 1), "\u00b2"):
        answer = Answer(web, f"/api/{job.name}/stream", Last_Event_ID=after)
        assert (answer.status, answer.reason) == (400, "INVALID_FIELD")


def test_the_overview_has_every_state_and_what_is_long_left_out(web: Service) -> None:
    job = web.end(web.create().name)
    deadline = time.monotonic() + SECONDS
    while job.name not in (answer := Answer(web, "/api/jobs")).text:
        assert time.monotonic() < deadline
    found = json.loads(answer.text)
    assert set(found["states"]) == set(job_pb.TrainingJob.State.keys()) - {"STATE_UNSPECIFIED"}
    newest = found["jobs"][0]
    assert (newest["name"], newest["progress"]["step"]) == (job.name, "12")
    assert not {"spec", "result"} & set(newest)


def test_connections_beyond_the_most_there_may_be_are_closed(web: Service) -> None:
    parts = urlsplit(web.addresses["web"])
    address = (parts.hostname or "", parts.port or 0)
    with ExitStack() as stack:
        for _ in range(MOST_CONNECTIONS):
            stack.enter_context(closing(socket.create_connection(address, SECONDS)))
        extra = stack.enter_context(closing(socket.create_connection(address, SECONDS)))
        assert extra.recv(1) == b""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            assert Answer(web, "/").status == 200
            break
        except OSError:  # the server hasn't noticed yet that the others are gone
            assert time.monotonic() < deadline


def test_requests_that_are_too_long(web: Service) -> None:
    for path, headers in (("/" + "x" * 20_000, {}), ("/", {"X": "x" * 20_000})):
        assert Answer(web, path, **headers).status in (400, 414, 431)
    assert Answer(web, "/").status == 200


def test_an_open_page_does_not_keep_the_service_from_stopping(tmp_path: Path) -> None:
    with ExitStack() as stack:
        with serving(tmp_path, web_listen="127.0.0.1:0") as service:
            asked = stack.enter_context(
                closing(http.client.HTTPConnection(urlsplit(service.addresses["web"]).netloc, timeout=SECONDS))
            )
            asked.request("GET", "/api/jobs/stream")
            response = asked.getresponse()
            assert response.fp.readline()
            begin = time.monotonic()
        assert time.monotonic() - begin < 5


def test_without_being_asked_there_is_no_page(service: Service) -> None:
    assert "web" not in service.addresses


# Who is let in


def basic(password: str) -> str:
    """As a browser answers when its user was asked for a password."""
    return f"Basic {base64.b64encode(f'anyone:{password}'.encode()).decode()}"


def test_where_there_are_tokens_the_page_wants_one_too(tmp_path: Path) -> None:
    with serving(tmp_path, web_listen="127.0.0.1:0", auth_tokens=write_tokens(tmp_path)) as service:
        right = TOKENS["reader"]
        for path in ("/", "/static/job.js", "/api/jobs", "/api/jobs/stream"):
            for wrong in ("", "Basic !", "Basic", basic("x"), basic(""), f"Bearer {right}x", f"Digest {right}"):
                answer = Answer(service, path, Authorization=wrong)
                assert (answer.status, answer.reason) == (401, "TOKEN_INVALID")
                assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")
            assert Answer(service, path).reason == "TOKEN_MISSING"
            for given in (basic(right), f"Bearer {right}"):
                assert Answer(service, path, Authorization=given).status == 200
        assert Answer(service, "/", Authorization=basic(right), Host="attacker.example").reason == "WRONG_HOST"


def test_beyond_this_machine_over_tls_and_with_a_token(tmp_path: Path) -> None:
    ca = trustme.CA()
    made = ca.issue_cert("127.0.0.1", "training.example")
    cert, key = tmp_path / "server.pem", tmp_path / "server.key"
    cert.write_bytes(b"".join(part.bytes() for part in made.cert_chain_pems))
    key.write_bytes(made.private_key_pem.bytes())
    given: dict[str, Any] = {"auth_tokens": write_tokens(tmp_path), "tls_cert": cert, "tls_key": key}
    with serving(tmp_path, web_listen="0.0.0.0:0", **given) as service:
        url = urlsplit(service.addresses["web"])
        assert url.scheme == "https"
        trusted = ssl.create_default_context()
        ca.configure_trust(trusted)
        with closing(http.client.HTTPSConnection("127.0.0.1", url.port, timeout=SECONDS, context=trusted)) as asked:
            for password, status in (("x", 401), (TOKENS["reader"], 200)):
                headers = {"Authorization": basic(password), "Host": "training.example"}
                asked.request("GET", "/api/jobs", headers=headers)
                response = asked.getresponse()
                response.read()
                assert response.status == status


@pytest.mark.parametrize("address", ["0.0.0.0:8080", "[::]:8080", "192.168.1.5:8080", "example.com:80"])
def test_addresses_beyond_this_machine_are_refused_without(address: str) -> None:
    with pytest.raises(ValidationError, match=r"--web-listen is .*, which others than this machine reach, and anyone"):
        Settings.model_validate({"web_listen": address})


# Files


def test_the_files_are_small_and_make_no_markup_of_data() -> None:
    files = [path for path in FILES.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 60_000
    wrong = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|https?://(?!www\.w3\.org)| style=| on\w+="
    )
    for path in files:
        text = (
            path.read_text()
            if path.suffix != ".js"
            else path.read_text().replace(".onopen =", "").replace(".onerror =", "")
        )
        assert not wrong.search(text), (path.name, wrong.search(text))
