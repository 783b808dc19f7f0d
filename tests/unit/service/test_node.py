"""A machine that can't be part of a cluster says why, and what would be right."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.cluster.cluster import ClusterError
from service.cluster.node import (
    Node,
    await_head,
    beside,
    check_terms,
    check_token,
    environment,
    head,
    why_not_started,
)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["Traceback", "ray.exceptions.AuthenticationError: RPC error"], "doesn't take this machine's token"),
        (
            ["Version mismatch: The cluster was started with:", " Ray: 2.60.0", " Python: 3.13.5", " Ray: 2.59.0"],
            "the cluster has Ray: 2.60.0; Python: 3.13.5, and this machine Ray: 2.59.0",
        ),
        (["bind: Address already in use"], "port is taken"),
        (["a port number 12345 that is used by other components.", "Port information"], "choose one such as 6379"),
        (["first", "the raylet was killed", ""], "Ray didn't start: the raylet was killed"),
        ([], "Ray didn't start: it printed nothing"),
    ],
)
def test_what_ray_printed_becomes_a_line(lines: list[str], told: str) -> None:
    assert told in why_not_started(lines)


@pytest.mark.parametrize("address", ["head", "head:", "head:port", "head:0", "head:70000", ":6379"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(ClusterError, match="must be HOST:PORT"):
        await_head(address, 0)


def test_somebody_answers_who_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.cluster.node.TERMS_SECONDS", 2.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(ClusterError, match="didn't answer in time"):
            check_terms(f"127.0.0.1:{silent.getsockname()[1]}", 0.5)


def test_nobody_answers() -> None:
    with pytest.raises(ClusterError, match=r"no cluster answers at 127.0.0.1:1 within 0 seconds.*--ray-listen"):
        await_head("127.0.0.1:1", 0)


@pytest.mark.parametrize(("content", "told"), [(None, "can't read .*No such file"), (b" \n", "is empty")])
def test_a_token_that_is_missing_or_empty(
    content: bytes | None, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    with pytest.raises(ClusterError, match=f"{told}.*the same token on every machine"):
        check_token()


def test_whether_a_token_is_wanted_follows_from_what_was_asked_for() -> None:
    """And not from what Ray once left in the home directory, as it would if nothing were said."""
    assert environment({"HOME": "/home/chain"})["RAY_AUTH_MODE"] == "disabled"
    assert environment({"RAY_AUTH_MODE": "token"})["RAY_AUTH_MODE"] == "token"


def test_no_cluster_for_others_without_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(ClusterError, match="could run code here"), head("192.0.2.1", 6379, 1):
        pass


def test_a_node_that_is_here_is_not_started_twice() -> None:
    """What listens here is no cluster: to start a node of it would fail."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        waits = ["raylet", "-c", "import sys; print(flush=True); sys.stdin.read()", f"--gcs-address={address}"]
        with subprocess.Popen(
            waits, executable=sys.executable, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as raylet:
            assert raylet.stdout
            raylet.stdout.readline()
            with beside(address):
                pass
            raylet.communicate("")


@pytest.mark.parametrize("address", ["auto", "local", "ray://127.0.0.1:1", "127.0.0.1:1", "no.such.host.invalid:1"])
def test_where_no_cluster_answers_ray_itself_says_so(address: str) -> None:
    with beside(address):
        pass


def test_a_node_that_ends_at_once_is_no_node() -> None:
    with pytest.raises(ClusterError, match=r"Ray didn't start: .*no-such-option"):
        Node("--no-such-option")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_can_be_stopped_while_it_waits(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "service.node", "127.0.0.1:1", "--wait-seconds=60"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as node:
        status, taken = Path(f"/proc/{node.pid}/status"), 0
        while not taken >> signal.SIGTERM - 1 & 1:
            taken = int(status.read_text().partition("SigCgt:")[2].split()[0], 16)
            time.sleep(0.01)
        time.sleep(0.2)
        node.send_signal(number)
        _, said = node.communicate(timeout=10)
    assert (node.returncode, said) == (0, "")
