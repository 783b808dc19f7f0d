"""The deployment, for real: the image, containers, TLS, Prometheus, and what happens when containers are killed.

    make test-deploy

Needs a Docker engine with Compose. Python on this machine must have the NumPy of the image, for the same bits.
"""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from chainrule.client import Client
from tests.deploy.compose import NEWER_IMAGE, ROOT, Deployment, build, run, until
from tests.deploy.training import DIGITS, at_work, chainrule, learn_digits, start

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(600)]

LONG = 2000
"""Epochs of a job that is disturbed: ten seconds."""


@pytest.fixture(scope="module")
def long_job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits, so often that there is time to disturb the job."""
    file = tmp_path_factory.mktemp("jobs") / "long.yaml"
    text = (ROOT / DIGITS).read_text()
    assert "epochs: 30 " in text
    file.write_text(text.replace("epochs: 30 ", f"epochs: {LONG} "))
    return file


@pytest.fixture(scope="module")
def job_of_two(long_job: Path) -> Path:
    """The same, but it waits for both workers, however long one takes to come back from being killed."""
    file = long_job.with_name("two.yaml")
    file.write_text(f"{long_job.read_text()}min_workers: 2\n")
    return file


@pytest.fixture(scope="module")
def undisturbed(long_job: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The SHA-256 of the parameters that the long job ends with on this machine alone, without containers."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OPENBLAS_", "CHAINRULE_"))}
    options = ["--json", "--data-dir", str(tmp_path_factory.mktemp("alone"))]
    command = [sys.executable, "-m", "chainrule", "train", str(long_job), *options]
    told = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout
    sha: str = json.loads(told.splitlines()[-1])["parameters_sha256"]
    return sha


def kept(client: Client) -> set[str]:
    """The names of all jobs, datasets and models."""
    return {
        *(job.name for job in client.jobs()),
        *(dataset.name for dataset in client.datasets()),
        *(model.name for model in client.models()),
    }


@pytest.mark.usefixtures("client")
def test_the_digits_are_learned_over_the_published_port(deployment: Deployment) -> None:
    assert learn_digits()["validation_accuracy"] >= 0.95
    until("the loss in Prometheus", lambda: bool(deployment.measured("chainrule_training_loss")), 30)
    (loss,) = deployment.measured("chainrule_training_loss")
    assert 0 < loss < math.log(10)


@pytest.mark.parametrize("files", [(), ("tls",), ("dev",), ("tls", "dev")], ids="+".join)
def test_compose_takes_every_file(files: tuple[str, ...]) -> None:
    named = [word for file in files for word in ("-f", f"deploy/compose.{file}.yaml")]
    run("docker", "compose", "-f", "deploy/compose.yaml", *named, "--profile", "alerts", "config", "-q")


def test_a_login_shell_finds_what_kuberay_starts(image: str) -> None:
    words = "ulimit -n 65536; ray --version && chainrule --version && ray kuberay-autoscaler --help"
    said = run(
        "docker", "run", "--rm", "--read-only", "--tmpfs=/tmp", "--entrypoint=/bin/bash", image, "-lc", "--", words
    )
    assert f"version {version('ray')}" in said
    assert version("chainrule") in said


def test_traces_are_asked_for_where_compose_is_run() -> None:
    def given(**env: str) -> dict[str, str]:
        told = run("docker", "compose", "-f", "deploy/compose.yaml", "config", "--format", "json", env=env)
        variables = json.loads(told)["services"]["coordinator"]["environment"]
        return {name: value for name, value in variables.items() if name.startswith("OTEL_") and value is not None}

    sent = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", "OTEL_SERVICE_NAME": "training"}
    assert given(**sent).items() >= sent.items()
    assert not {name for name in given() if name not in os.environ}


def test_alertmanager_is_where_prometheus_looks_for_it(deployment: Deployment) -> None:
    def asked(url: str) -> str:
        ask = f"import urllib.request as r; print(r.urlopen({url!r}, timeout=5).read().decode())"
        return deployment.compose("exec", "-T", "coordinator", "python", "-c", ask, check=False)

    assert "level=error" not in deployment.compose("logs", "prometheus")
    (found,) = json.loads(asked("http://prometheus:9090/api/v1/alertmanagers"))["data"]["activeAlertmanagers"]
    deployment.up("coordinator", "worker", "alertmanager")
    address = found["url"].removesuffix("/api/v2/alerts")
    until("Alertmanager", lambda: asked(f"{address}/-/ready").strip() == "OK", 60)


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
    deployment: Deployment, client: Client, job_of_two: Path, undisturbed: str
) -> None:
    name = start(job_of_two)
    until("two workers", lambda: at_work(client, name, 2), 60)
    deployment.kill(deployment.containers("worker")[0])
    job = client.wait(name)
    assert job.result.parameters_sha256 == undisturbed
    assert job.progress.worker_failures == 1


def test_a_coordinator_that_is_killed_goes_on(
    deployment: Deployment, client: Client, job_of_two: Path, undisturbed: str
) -> None:
    name = start(job_of_two)
    until("two workers", lambda: at_work(client, name, 2), 60)
    until("its first steps", lambda: client.get_job(name).progress.step > 1_000, 60)
    deployment.kill(deployment.containers("coordinator")[0])
    until("the coordinator again", lambda: "is ready" in chainrule("health", check=False), 60)
    job = client.wait(name)
    assert job.result.parameters_sha256 == undisturbed


def test_a_newer_image_goes_on_with_what_is_there(
    deployment: Deployment, client: Client, long_job: Path, undisturbed: str
) -> None:
    build(NEWER_IMAGE, "--build-arg", "VERSION=0.1.1")
    name = start(long_job)
    until("its first steps", lambda: client.get_job(name).progress.step > 0, 60)
    before = kept(client)
    assert {kind.partition("/")[0] for kind in before} == {"jobs", "datasets", "models"}
    deployment.compose("down")
    newer = replace(deployment, image=NEWER_IMAGE)
    newer.up("coordinator", "worker", "prometheus", "alertmanager")
    labels = newer.inspect(newer.containers("coordinator")[0])["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == "0.1.1"
    assert kept(client) >= before
    assert client.wait(name).result.parameters_sha256 == undisturbed
