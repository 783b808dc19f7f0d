"""What proves who calls: where it is found, and where it is never sent."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner

from chainrule import Client, CredentialsError, PermissionDenied, ServiceError, Unauthenticated
from chainrule.cli import main
from chainrule.credentials import Credentials, find_credentials
from tests.unit.client.fakes import FakeService

VARIABLES = ("TOKEN", "TOKEN_FILE", "CA", "CERT", "KEY")


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(f"CHAINRULE_{variable}", raising=False)


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    def write(name: str) -> Path:
        (tmp_path / name).write_text(f"{name}\n")
        return tmp_path / name

    return write


def test_there_may_be_nothing() -> None:
    assert find_credentials() == Credentials()


def test_what_is_given_comes_before_the_environment(
    written: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in VARIABLES[1:]:
        monkeypatch.setenv(f"CHAINRULE_{variable}", str(written(variable)))
    assert find_credentials() == Credentials("TOKEN_FILE", b"CA\n", b"CERT\n", b"KEY\n")
    monkeypatch.setenv("CHAINRULE_TOKEN", "variable")
    assert find_credentials() == Credentials("variable", b"CA\n", b"CERT\n", b"KEY\n")
    given = find_credentials("own", written("a"), written("b"), written("c"))
    assert given == Credentials("own", b"a\n", b"b\n", b"c\n")
    assert find_credentials("").token == ""


def test_what_cannot_be_used(written: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for token in ("two words", "line\nbreak", "\u00e9"):
        with pytest.raises(CredentialsError, match="must be the token alone"):
            find_credentials(token)
    with pytest.raises(CredentialsError, match="CHAINRULE_CERT and CHAINRULE_KEY"):
        find_credentials(cert=written("cert"))
    with pytest.raises(CredentialsError, match=r"can't read .*none: No such file"):
        find_credentials(ca=tmp_path / "none")
    monkeypatch.setenv("CHAINRULE_TOKEN_FILE", str(tmp_path / "none"))
    with pytest.raises(CredentialsError, match=r"CHAINRULE_TOKEN_FILE: can't read .*none"):
        find_credentials()


def test_secrets_are_not_shown() -> None:
    assert "secret" not in repr(Credentials("secret", None, b"secret", b"secret"))


@pytest.mark.parametrize("host", ["training.example", "192.0.2.1", "[2001:db8::1]", "localhost.example", "127.example"])
def test_a_token_stays_within_the_machine_or_tls(host: str) -> None:
    with pytest.raises(CredentialsError, match="use grpcs://"):
        Client(f"{host}:50051", token="secret")  # noqa: S106
    with Client(f"grpcs://{host}:50051", token="secret"), Client(f"{host}:50051"):  # noqa: S106
        pass


class Listening(grpc.GenericRpcHandler):
    """Has no method, but notes the authorization of every call."""

    def __init__(self) -> None:
        self.headers: list[Any] = []

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> None:
        metadata: Any = handler_call_details.invocation_metadata
        self.headers.extend(value for name, value in metadata if name == "authorization")


@pytest.fixture
def seen() -> Iterator[tuple[str, list[Any]]]:
    """An address, and the authorization of each call that came there."""
    listening = Listening()
    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads, handlers=[listening])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}", listening.headers
        server.stop(None).wait()


def test_a_token_goes_with_every_kind_of_call(seen: tuple[str, list[Any]]) -> None:
    address, headers = seen
    with Client(address, token="secret", timeout=10) as client:  # noqa: S106
        calls: list[Callable[[], object]] = [
            lambda: client.get_job("a"),
            lambda: list(client.watch("a", patience=0)),
            lambda: client.upload_model(b"model", "a"),
        ]
        for number, call in enumerate(calls, start=1):
            with pytest.raises(ServiceError) as error:
                call()
            assert error.value.code == grpc.StatusCode.UNIMPLEMENTED
            assert headers == ["Bearer secret"] * number


def test_refusals_have_classes_of_their_own() -> None:
    assert issubclass(Unauthenticated, ServiceError)
    assert issubclass(PermissionDenied, ServiceError)
    assert not issubclass(Unauthenticated, PermissionDenied)


def test_the_command_makes_tokens_that_are_never_the_same() -> None:
    shown = [CliRunner().invoke(main, ["admin", "token", "alice", "--scope", "read"]) for _ in range(2)]
    assert [each.exit_code for each in shown] == [0, 0]
    secrets = [next(word for word in each.output.split() if word.startswith("chainrule_")) for each in shown]
    assert len(set(secrets)) == 2
    assert all(len(secret) == len("chainrule_") + 43 for secret in secrets)
    (line,) = [line for line in shown[0].output.splitlines() if "alice read" in line]
    assert secrets[0] not in line


@pytest.mark.parametrize("name", ["", "two words", "a/b", "-a", "a" * 101])
def test_the_command_refuses_names_that_the_file_would(name: str) -> None:
    result = CliRunner().invoke(main, ["admin", "token", "--", name])
    assert (result.exit_code, "must be 1 to 100 letters" in result.output) == (2, True)


def test_the_command_line_takes_addresses_with_tls(service: FakeService) -> None:
    refused = CliRunner().invoke(main, ["jobs", "list", "--server", "grpcs://example"])
    assert (refused.exit_code, "must be HOST:PORT" in refused.output) == (2, True)
    away = CliRunner().invoke(main, ["jobs", "list", "--server", f"grpcs://{service.address}"])
    assert (away.exit_code, "doesn't speak TLS" in away.output) == (3, True)
