"""What is set up wrongly ends a container with exit code 2, and a last line that says what is wrong and what to do."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.deploy.compose import ROOT, Deployment, run

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(120)]

SECRETS = ROOT / "deploy/secrets"
SITE = "/opt/chainrule/lib/python3.13/site-packages"
TOKEN = ("-e", "RAY_AUTH_MODE=token", "-e", "RAY_AUTH_TOKEN_PATH=/token")
SERVE = ("serve", "--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0")


def last_line(image: str, options: Sequence[str], command: Sequence[str]) -> str:
    """What a container says last, as it ends with exit code 2."""
    started = ["docker", "run", "--rm", *options, image, *command]
    done = subprocess.run(started, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 2, done.stderr
    return done.stderr.splitlines()[-1]


def read_only(file: Path, at: str) -> tuple[str, str]:
    """The option that puts a file into a container."""
    file.chmod(0o444)
    return "-v", f"{file}:{at}:ro"


@pytest.mark.parametrize(("content", "told"), [(None, "can't read the cluster's token"), ("\n", "is empty")])
def test_a_worker_without_a_token(image: str, content: str | None, told: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(content or "")
    given = () if content is None else read_only(tmp_path / "token", "/token")
    line = last_line(image, (*TOKEN, *given), ("worker", "head:6379", "--wait-seconds=0"))
    assert told in line
    assert "RAY_AUTH_TOKEN_PATH must name a file with the same token on every machine" in line


@pytest.mark.parametrize(("content", "told"), [(None, "can't read /tokens"), ("\n", "has no token")])
def test_a_coordinator_without_tokens(image: str, content: str | None, told: str, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(content or "")
    given = () if content is None else read_only(tmp_path / "tokens", "/tokens")
    line = last_line(image, given, (*SERVE, "--auth-tokens=/tokens"))
    assert line.startswith("--auth-tokens: ")
    assert told in line


def test_a_coordinator_that_anybody_could_call(image: str) -> None:
    assert "--auth-tokens" in last_line(image, (), ("serve", "--listen=0.0.0.0:50051"))


def test_a_data_volume_of_someone_else(image: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    line = last_line(image, ("-v", f"{tmp_path}:/var/lib/chainrule"), SERVE)
    assert line.startswith("can't use the data directory /var/lib/chainrule: Permission denied")
    assert f"belongs to user {os.getuid()}, and this runs as user 10001" in line
    assert "chown -R 10001 /var/lib/chainrule" in line


def test_too_little_shared_memory(image: str) -> None:
    line = last_line(image, ("--shm-size=64m",), (*SERVE, "--ray-listen=127.0.0.1:6379"))
    assert re.search(r"shm has 64 MiB and must have 256 or more.*shm_size", line)


def test_a_port_that_is_taken(image: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        serve = ("serve", "--listen=127.0.0.1:0", f"--metrics-listen=127.0.0.1:{port}", "--local-workers=1")
        line = last_line(image, ("--network=host", "--shm-size=1g"), serve)
    assert line == f"can't listen at 127.0.0.1:{port} for metrics: Address already in use"


@pytest.mark.parametrize("command", [SERVE, ("worker", "head:6379")])
def test_a_clock_that_is_far_off(image: str, command: Sequence[str], tmp_path: Path) -> None:
    # The clock is everybody's; what it is compared with is a file's date.
    module = tmp_path / "clock.py"
    module.write_bytes((ROOT / "service/clock.py").read_bytes())
    options = read_only(module, f"{SITE}/service/clock.py")
    os.utime(module, (4_000_000_000, 4_000_000_000))
    line = last_line(image, options, command)
    assert re.match(r"this machine's clock says .* must be wrong: Chainrule was installed here on 2096-10-02", line)


def inside(deployment: Deployment) -> tuple[str, str]:
    """The network that Ray listens on: its name, and the coordinator's address there."""
    coordinator = deployment.inspect(deployment.containers("coordinator")[0])
    networks = coordinator["NetworkSettings"]["Networks"].items()
    return next((name, network["IPAddress"]) for name, network in networks if name.endswith("inside"))


def of_a_worker(deployment: Deployment, image: str, *options: str) -> str:
    """What a worker says last that has the token, but may not join."""
    given = (*TOKEN, *read_only(SECRETS / "ray_token", "/token"), "--network", inside(deployment)[0], "--shm-size=1g")
    return last_line(image, (*given, *options), ("worker", "head:6379"))


def test_a_worker_of_another_ray(deployment: Deployment, image: str, tmp_path: Path) -> None:
    file = tmp_path / "_version.py"
    file.write_text('version = "2.59.0"\ncommit = ""\n')
    line = of_a_worker(deployment, image, *read_only(file, f"{SITE}/ray/_version.py"))
    assert re.match(r"the cluster has Ray: 2\.60.*, and this machine Ray: 2\.59\.0; .*run the same image on both", line)


def test_a_worker_of_another_python(deployment: Deployment) -> None:
    """This machine's own, which reaches containers as it runs them."""
    if sys.version_info[:2] == (3, 13):
        pytest.skip("this machine's Python is the image's")
    own = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
    environment = {**own, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(SECRETS / "ray_token")}
    command = [sys.executable, "-m", "chainrule", "worker", f"{inside(deployment)[1]}:6379"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 2, done.stderr
    line = done.stderr.splitlines()[-1]
    ours = f"Python {sys.version_info[0]}.{sys.version_info[1]}"
    assert re.match(rf"the coordinator has .*Python 3\.13,.*, and this machine .*{ours},.*; run the same image", line)


@pytest.mark.parametrize(("name", "found"), [("chainrule", "Chainrule 0.0.9"), ("numpy", "NumPy 1.26.4")])
def test_a_worker_of_other_versions(deployment: Deployment, image: str, name: str, found: str, tmp_path: Path) -> None:
    there = {
        "chainrule": f"{SITE}/chainrule-{version('chainrule')}.dist-info/METADATA",
        "numpy": f"{SITE}/numpy/version.py",
    }
    content = run("docker", "run", "--rm", "--entrypoint", "cat", image, there[name])
    file = tmp_path / "file"
    file.write_text(re.sub(r"\d+\.\d+\.\d+", found.split()[1], content))
    line = of_a_worker(deployment, image, *read_only(file, there[name]))
    assert re.match(
        rf"the coordinator has .*, and this machine .*{re.escape(found)}, .*; run the same image on both", line
    )


def test_a_worker_with_another_clock(deployment: Deployment, image: str, tmp_path: Path) -> None:
    # The clock is everybody's: this one's Python is an hour ahead.
    tmp_path.chmod(0o755)
    (tmp_path / "sitecustomize.py").write_text("import time\n\nhere = time.time\ntime.time = lambda: here() + 3600\n")
    line = of_a_worker(deployment, image, "-e", "PYTHONPATH=/ahead", "-v", f"{tmp_path}:/ahead:ro")
    assert re.match(r"the coordinator's clock says .* UTC, and this machine's .* UTC; set the one that is wrong", line)
