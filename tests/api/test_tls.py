"""TLS: who trusts whom, what people are told when they don't, and certificates that change."""

import asyncio
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from chainrule import Client, Unavailable
from service.__main__ import Refused, coordinator
from service.settings import Settings
from tests.api.principals import TOKENS, write_tokens
from tests.api.running import FLOWERS, SECONDS, Service, serving
from tests.unit.service.unreliable import GatedCluster

HOST = "127.0.0.1"
PAST = datetime.now(UTC) - timedelta(days=2)


@dataclass(frozen=True)
class Files:
    """Where the certificates of a test lie."""

    directory: Path
    ca: trustme.CA

    def trusted(self) -> Path:
        """The authority's own certificate."""
        return self._write("ca.pem", self.ca.cert_pem.bytes())

    def issue(self, name: str, *identities: str, ca: trustme.CA | None = None, **fields: Any) -> tuple[Path, Path]:
        """A certificate and its key, in place of any that had the name."""
        made = (ca or self.ca).issue_cert(*identities, **fields)
        chain = b"".join(part.bytes() for part in made.cert_chain_pems)
        return self._write(f"{name}.pem", chain), self._write(f"{name}.key", made.private_key_pem.bytes())

    def _write(self, name: str, data: bytes) -> Path:
        path = self.directory / name
        path.write_bytes(data)
        return path


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path, trustme.CA())


@contextmanager
def encrypted(files: Files, **settings: Any) -> Iterator[Service]:
    """A coordinator that speaks TLS, with a certificate of its own unless another lies there."""
    cert, key = files.directory / "server.pem", files.directory / "server.key"
    if not cert.exists():
        files.issue("server", HOST)
    with serving(files.directory, GatedCluster(), tls_cert=cert, tls_key=key, **settings) as service:
        yield service


def ask(service: Service, address: str = "", **given: Any) -> None:
    """One call by a client of its own."""
    with Client(address or service.addresses["grpc"], timeout=SECONDS, **given) as client:
        list(client.jobs())


def test_a_client_that_trusts_the_authority(files: Files) -> None:
    with encrypted(files) as service:
        assert service.addresses["grpc"].startswith("grpcs://127.0.0.1:")
        ask(service, ca=files.trusted())


def test_a_token_over_tls(files: Files) -> None:
    with encrypted(files, auth_tokens=write_tokens(files.directory)) as service:
        ask(service, ca=files.trusted(), token=TOKENS["reader"])


def test_what_a_client_is_told(files: Files) -> None:
    with encrypted(files) as service:
        strangers = files.directory / "strangers.pem"
        strangers.write_bytes(trustme.CA().cert_pem.bytes())
        with pytest.raises(Unavailable, match=r"signed by nobody who is trusted here.*CHAINRULE_CA"):
            ask(service, ca=strangers)
        plain = service.addresses["grpc"].removeprefix("grpcs://")
        with pytest.raises(Unavailable, match=f"it may speak TLS: try grpcs://{plain}"):
            ask(service, plain)
        files.issue("server", HOST, not_before=PAST, not_after=PAST + timedelta(days=1))
        with pytest.raises(Unavailable, match=r"the certificate of 127\.0\.0\.1:[0-9]+ has expired"):
            ask(service, ca=files.trusted())
        files.issue("server", "elsewhere.example")
        with pytest.raises(Unavailable, match="is for another host name"):
            ask(service, ca=files.trusted())


def test_a_client_that_expects_tls_where_there_is_none(files: Files) -> None:
    with serving(files.directory, GatedCluster()) as service, pytest.raises(Unavailable, match="doesn't speak TLS"):
        ask(service, f"grpcs://{service.addresses['grpc']}", ca=files.trusted())


def test_mutual_tls(files: Files) -> None:
    ca = files.trusted()
    with encrypted(files, tls_client_ca=ca) as service:
        with pytest.raises(Unavailable, match="it may want a certificate of yours: CHAINRULE_CERT"):
            ask(service, ca=ca)
        cert, key = files.issue("stranger", "mallory@example.org", ca=trustme.CA())
        with pytest.raises(Unavailable, match="it may want a certificate of yours"):
            ask(service, ca=ca, cert=cert, key=key)
        expired = files.issue("late", "bob@example.org", not_before=PAST, not_after=PAST + timedelta(days=1))
        with pytest.raises(Unavailable):
            ask(service, ca=ca, cert=expired[0], key=expired[1])
        cert, key = files.issue("alice", "alice@example.org", common_name="alice")
        with Client(service.addresses["grpc"], timeout=SECONDS, ca=ca, cert=cert, key=key) as alice:
            assert alice.upload_dataset(FLOWERS, "flowers").created_by == "alice"
    (entry,) = map(json.loads, (files.directory / "audit.log").read_text().splitlines())
    assert (entry["principal"], entry["outcome"]) == ("alice", "OK")


def test_a_certificate_proves_no_principal_where_there_are_tokens(files: Files) -> None:
    ca, tokens = files.trusted(), write_tokens(files.directory)
    with encrypted(files, tls_client_ca=ca, auth_tokens=tokens) as service:
        cert, key = files.issue("alice", "alice@example.org", common_name="root")
        with Client(service.addresses["grpc"], ca=ca, cert=cert, key=key, token=TOKENS["alice"]) as alice:
            assert alice.upload_dataset(FLOWERS, "flowers").created_by == "alice"


def test_certificates_are_read_again(files: Files) -> None:
    """Also the authority's; and what can't be read leaves in force what was before."""
    ca = files.trusted()
    with encrypted(files) as service:
        ask(service, ca=ca)
        (files.directory / "server.key").write_text("nonsense")
        ask(service, ca=ca)
        other = Files(files.directory, trustme.CA())
        other.issue("server", HOST)
        ca = other.trusted()
        ask(service, ca=ca)
        assert urllib.request.urlopen(  # noqa: S310 - our own address
            service.addresses["metrics"], timeout=SECONDS, context=ssl.create_default_context(cafile=ca)
        ).status


def test_metrics_over_tls(files: Files) -> None:
    ca = files.trusted()
    with encrypted(files, tls_client_ca=ca) as service:
        url, context = service.addresses["metrics"], ssl.create_default_context(cafile=ca)
        assert url.startswith("https://")
        with pytest.raises((urllib.error.URLError, ssl.SSLError, ConnectionError)):
            urllib.request.urlopen(url, timeout=SECONDS, context=context).read()  # noqa: S310 - our own address
        context.load_cert_chain(*files.issue("prometheus", "prometheus@example.org"))
        with urllib.request.urlopen(url, timeout=SECONDS, context=context) as answer:  # noqa: S310 - our own address
            assert b"chainrule_jobs" in answer.read()


def test_files_that_cannot_be_used_keep_it_from_starting(files: Files) -> None:
    cert, key = files.issue("server", HOST)
    nonsense = files.directory / "nonsense"
    nonsense.write_text("nonsense")
    _, other = files.issue("other", HOST)
    tokens = write_tokens(files.directory)
    tokens.chmod(0o646)
    for settings, message in (
        ({"tls_cert": cert, "tls_key": files.directory / "none"}, "can't read .*none: No such file"),
        ({"tls_cert": cert, "tls_key": other}, "must be a certificate and its private key"),
        ({"tls_cert": nonsense, "tls_key": key}, "must be a certificate and its private key"),
        ({"tls_cert": cert, "tls_key": key, "tls_client_ca": nonsense}, "nonsense must be certificates in PEM"),
        ({"auth_tokens": tokens}, "others may write .*chmod go-w"),
        ({"auth_tokens": files.directory / "none"}, "--auth-tokens: can't read .*none: No such file"),
    ):
        with pytest.raises(Refused, match=message):
            starting(files.directory, settings)


def starting(directory: Path, settings: dict[str, Any]) -> None:
    """What comes of starting a coordinator, in this thread."""

    async def run() -> None:
        given = Settings(data_dir=directory, listen="127.0.0.1:0", metrics_listen="127.0.0.1:0", **settings)
        async with coordinator(given, GatedCluster()):
            raise AssertionError("it started")

    asyncio.run(run())
