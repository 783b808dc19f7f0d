"""Where the service may listen, and with what."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from service.access.exposure import is_loopback
from service.settings import Settings


def settings(**given: Any) -> Settings:
    """Settings, of whatever kind."""
    return Settings(**given)


TOKENS: dict[str, Any] = {"auth_tokens": Path("tokens")}
TLS: dict[str, Any] = {"tls_cert": Path("cert"), "tls_key": Path("key")}
MUTUAL: dict[str, Any] = {**TLS, "tls_client_ca": Path("ca")}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "[::1]", "::1"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)
    settings(listen=f"{host}:0", metrics_listen=f"{host}:0")


ENOUGH: tuple[dict[str, Any], ...] = ({**TOKENS, **TLS}, MUTUAL, {"allow_insecure": True})
LACKING: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({}, ("--auth-tokens", "--tls-cert")),
    (TOKENS, ("--tls-cert",)),
    (TLS, ("--auth-tokens",)),
]
ANY = ".".join("0000")
ELSEWHERE = (ANY, "[::]", "::", "192.0.2.1", "[2001:db8::1]", "example.org", "localhost.example.org", "*", "127.1")


@pytest.mark.parametrize("host", ELSEWHERE)
def test_beyond_loopback_needs_both(host: str) -> None:
    assert not is_loopback(host)
    for option in ("listen", "metrics_listen"):
        address: dict[str, Any] = {option: f"{host}:0"}
        for given, missing in LACKING:
            with pytest.raises(ValidationError) as error:
                settings(**address, **given)
            assert all(part in str(error.value) for part in (f"--{option.replace('_', '-')} is {host}", *missing))
        for enough in ENOUGH:
            settings(**address, **enough)


@pytest.mark.parametrize("given", [{"tls_cert": Path("cert")}, {"tls_key": Path("key")}])
def test_a_certificate_and_its_key_come_together(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="come together"):
        settings(**given)


def test_clients_certificates_need_tls() -> None:
    with pytest.raises(ValidationError, match="--tls-client-ca needs --tls-cert"):
        settings(tls_client_ca=Path("ca"))
