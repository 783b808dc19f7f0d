"""A client in another language: the example in TypeScript trains, watches across a restart, and predicts."""

import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.system.coordinator import LONG, running
from tests.system.processes import run, started, until

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "node"
LEAST_NODE = 18


def command(*arguments: str, directory: Path) -> str:
    """What a command writes, which must succeed."""
    environment = {"HOME": os.environ.get("HOME", "/"), "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    code, out, err = run(arguments, directory, **environment)
    assert code == 0, out + err
    return out


def without(reason: str) -> None:
    """Leaves the test out for want of a tool, unless all tools must be there."""
    if os.environ.get("CHAINRULE_REQUIRE_TOOLS"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Sequence[str]:
    """The example, in a copy, built as its README says. npm holds what is installed against the lock file's hashes."""
    directory = tmp_path_factory.mktemp("node")
    if not (shutil.which("node") and shutil.which("npm")):
        without("there is no node or no npm here; Debian's packages nodejs and npm have them")
    version = command("node", "--version", directory=directory)
    if int(version.strip().removeprefix("v").partition(".")[0]) < LEAST_NODE:
        without(f"node is {version.strip()}, and the example needs {LEAST_NODE} or newer")
    copy = directory / "checkout" / "examples" / "node"
    ours = shutil.ignore_patterns("node_modules", "build", "contract")
    shutil.copytree(EXAMPLE, copy, ignore=ours)
    shutil.copytree(ROOT / "protos", directory / "checkout" / "protos")
    npm = ("npm", "--prefix", str(copy), "--no-audit", "--no-fund", "--prefer-offline")
    code, _, err = run([*npm, "ci"], directory, HOME=os.environ.get("HOME", "/"))
    if code != 0:
        without(f"npm can't install what the example needs: {err}")
    command(*npm, "run", "build", directory=directory)
    return ("node", str(copy / "build" / "main.js"))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
    return port


def test_it_trains_watches_across_a_restart_and_predicts(program: Sequence[str], tmp_path: Path) -> None:
    table = tmp_path / "digits.csv"
    command(sys.executable, "-m", "examples.data.digits_csv", str(table), directory=tmp_path)
    address = f"127.0.0.1:{free_port()}"
    options = ("--listen", address, "--local-workers", "2")
    with started([*program, address, str(table), str(LONG)], tmp_path / "node") as client:
        with running(tmp_path / "data", *options) as coordinator:
            until(lambda: "epoch 10:" in client.stdout or client.has_ended())
            coordinator.program.send(signal.SIGTERM)
            assert coordinator.program.result() == 0
        until(lambda: "lost the coordinator" in client.stdout or client.has_ended())
        with running(tmp_path / "data", *options):
            code = client.result()
    assert code == 0, client.stderr
    assert "datasets/digits-by-node: 1797 rows" in client.stdout
    assert "QUEUED goes on when the coordinator, which was stopped, starts again" in client.stdout
    assert [int(epoch) for epoch in re.findall(r"^epoch (\d+):", client.stdout, re.M)] == list(range(1, LONG + 1))
    (right,) = re.findall(r"^model [a-z0-9-]+: (\d+) of 1797 digits are right", client.stdout, re.M)
    assert int(right) > 0.97 * 1797


def test_it_says_what_is_wrong(program: Sequence[str], tmp_path: Path) -> None:
    code, _, err = run([*program, "127.0.0.1:1"], tmp_path)
    assert code == 2
    assert err == "usage: node build/main.js HOST:PORT digits.csv [EPOCHS]\n"
