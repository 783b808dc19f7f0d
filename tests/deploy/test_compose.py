"""The deployment, for real: the image, containers, secrets, TLS, and what happens when containers are killed.

    make test-deploy

Needs a Docker engine with Compose. Python on this machine must have the NumPy of the image, for the same bits.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chainrule.client import Client
from chainrule.v1.training_job_pb2 import TrainingJob
from tests.deploy.compose import IMAGE, ROOT, Deployment, free_port, run, until

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(600)]

FILES = ("deploy/compose.yaml", "deploy/compose.tls.yaml")

LONG = 2500
"""Epochs of a job that is disturbed: twenty seconds."""


@pytest.fixture(scope="module", autouse=True)
def image() -> None:
    """The image, and secrets."""
    run("docker", "build", "-q", "-f", "deploy/Dockerfile", "-t", IMAGE, ".")
    run("sh", "deploy/secrets.sh")


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    """A coordinator and two workers."""
    made = Deployment(free_port(), free_port(), FILES)
    made.compose("down", "-v", "--remove-orphans", check=False)
    try:
        made.up("coordinator", "worker")
        yield made
    finally:
        made.compose("down", "-v", "--remove-orphans", check=False)


@pytest.fixture
def client(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client on this machine, over the published port, with token and TLS."""
    for name, value in deployment.client_env().items():
        monkeypatch.setenv(name, value)
    with Client(deployment.client_env()["CHAINRULE_SERVER"]) as made:
        yield made


@pytest.fixture(scope="module")
def long_job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits, so often that there is time to disturb the job."""
    file = tmp_path_factory.mktemp("jobs") / "long.yaml"
    text = (ROOT / "examples/digits.yaml").read_text()
    assert "epochs: 30 " in text
    file.write_text(text.replace("epochs: 30 ", f"epochs: {LONG} "))
    return file


@pytest.fixture(scope="module")
def undisturbed(long_job: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The SHA-256 of the parameters that the long job ends with, on this machine alone, without containers."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OPENBLAS_", "CHAINRULE_"))}
    command = ["train", str(long_job), "--json", "--data-dir", str(tmp_path_factory.mktemp("alone"))]
    told = subprocess.run(
        [sys.executable, "-m", "chainrule", *command], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    ).stdout
    sha: str = json.loads(told.splitlines()[-1])["parameters_sha256"]
    return sha


def chainrule(*words: str, check: bool = True) -> str:
    """The command line on this machine."""
    return run(sys.executable, "-m", "chainrule", *words, check=check)


def start(long_job: Path) -> str:
    """Starts the long job; returns its name."""
    return chainrule("train", str(long_job), "--detach").split()[-1]


def at_work(client: Client, name: str, workers: int) -> bool:
    """Whether a job takes steps with so many workers."""
    job = client.get_job(name)
    return job.state == TrainingJob.RUNNING and job.progress.workers == workers and job.progress.step > 0


@pytest.mark.usefixtures("client")
def test_the_digits_are_learned_over_the_published_port() -> None:
    result = json.loads(chainrule("train", "examples/digits.yaml", "--json").splitlines()[-1])
    assert result["validation_accuracy"] >= 0.95


def test_workers_come_and_go_and_the_bits_stay(
    deployment: Deployment, client: Client, long_job: Path, undisturbed: str
) -> None:
    name = start(long_job)
    until("two workers in shared memory", lambda: client.get_job(name).progress.shared_memory_workers == 2, 30)
    for workers in (3, 1):
        deployment.up("coordinator", "worker", workers=workers)
    assert len(deployment.containers("worker")) == 1
    job = client.wait(name)
    assert job.result.parameters_sha256 == undisturbed
    deployment.up("coordinator", "worker")


def test_a_worker_that_is_killed_changes_no_bit(
    deployment: Deployment, client: Client, long_job: Path, undisturbed: str
) -> None:
    name = start(long_job)
    until("two workers", lambda: at_work(client, name, 2), 60)
    deployment.kill(deployment.containers("worker")[0])
    job = client.wait(name)
    assert job.result.parameters_sha256 == undisturbed
    assert job.progress.worker_failures == 1


def test_a_coordinator_that_is_killed_goes_on(
    deployment: Deployment, client: Client, long_job: Path, undisturbed: str
) -> None:
    name = start(long_job)
    until("two workers", lambda: at_work(client, name, 2), 60)
    until("its first steps", lambda: client.get_job(name).progress.step > 1_000, 60)
    deployment.kill(deployment.containers("coordinator")[0])
    until("the coordinator again", lambda: "is ready" in chainrule("health", check=False), 60)
    job = client.wait(name)
    assert job.result.parameters_sha256 == undisturbed


def test_what_was_made_outlives_the_containers(deployment: Deployment, client: Client) -> None:
    before = {job.name for job in client.jobs()}
    deployment.compose("down")
    deployment.up("coordinator", "worker")
    assert {job.name for job in client.jobs()} == before


def test_containers_are_locked_down(deployment: Deployment) -> None:
    secrets = [(ROOT / "deploy/secrets" / name).read_text() for name in ("api_token", "ray_token", "metrics_token")]
    for container in deployment.containers("coordinator") + deployment.containers("worker"):
        found = deployment.inspect(container)
        assert found["Config"]["User"] not in ("", "root", "0")
        assert found["HostConfig"]["ReadonlyRootfs"]
        assert found["HostConfig"]["CapDrop"] == ["ALL"]
        assert not found["HostConfig"]["CapAdd"]
        assert "no-new-privileges:true" in found["HostConfig"]["SecurityOpt"]
        published = {port for port, bound in found["NetworkSettings"]["Ports"].items() if bound}
        assert published <= {"50051/tcp", "8080/tcp"}
        environment = "\n".join(found["Config"]["Env"])
        assert not any(secret in environment for secret in secrets)
        status = run("docker", "exec", container, "cat", "/proc/1/status")
        assert "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status


@pytest.mark.usefixtures("client")
def test_without_the_token_nothing_but_health_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHAINRULE_TOKEN_FILE")
    assert "is ready" in chainrule("health")
    with pytest.raises(AssertionError, match="token"):
        chainrule("jobs", "list")


def test_a_container_without_secrets_says_so() -> None:
    for command, told in (
        (["worker", "head:6379"], "RAY_AUTH_TOKEN_PATH must name a file"),
        (["serve", "--listen=0.0.0.0:50051"], "--auth-tokens"),
    ):
        environment = ["-e", "RAY_AUTH_MODE=token", "-e", "RAY_AUTH_TOKEN_PATH=/run/secrets/ray_token"]
        options = [] if command[0] == "serve" else ["--wait-seconds=0"]
        said = run("docker", "run", "--rm", *environment, IMAGE, *command, *options, check=False)
        assert told in said.splitlines()[-1]
