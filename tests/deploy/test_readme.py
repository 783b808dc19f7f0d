"""What the README says of a deployment is what happens; and what a deployment takes, in bytes and seconds."""

import json
import re
import shlex
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.deploy.compose import ROOT, Deployment, free_port, have_watchers, run

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(300)]

PROJECT = "chainrule-readme"
MOST_IMAGE_BYTES = 700 * 10**6


def commands() -> list[str]:
    """The commands of the README's section on a service."""
    section = (ROOT / "README.md").read_text().partition("\n## A service of it\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    return [line.partition(" #")[0].strip() for line in block.splitlines()]


@pytest.fixture
def environment(image: str) -> Iterator[dict[str, str]]:
    """Ports that are free, a name of its own, and all services but Grafana, whose image not everybody can pull."""
    have_watchers()
    made = {
        "COMPOSE_PROJECT_NAME": PROJECT,
        "CHAINRULE_IMAGE": image,
        "CHAINRULE_PORT": str(free_port()),
        "CHAINRULE_WEB_PORT": str(free_port()),
        "SERVICES": "coordinator worker prometheus",
    }
    yield made
    run("docker", "compose", "-f", "deploy/compose.yaml", "down", "-v", "--remove-orphans", env=made)


def test_the_commands_of_the_readme(environment: dict[str, str]) -> None:
    words = [shlex.split(command) for command in commands()]
    assert {tuple(command[:2]) for command in words} >= {("make", "up"), ("make", "down")}
    here = {".venv/bin/chainrule": str(Path(sys.executable).with_name("chainrule"))}
    address = {"127.0.0.1:50051": f"127.0.0.1:{environment['CHAINRULE_PORT']}"}
    learned = False
    for command in words:
        if command[0] == "export":
            environment.update(dict([command[1].split("=", 1)]))
            continue
        only = environment["SERVICES"].split() if command[0] == "docker" else []
        said = run(*[(here | address).get(word, word) for word in command], *only, env=environment)
        learned |= "succeeded" in said.lower()
        if "worker=4" in command:
            workers = run("docker", "compose", "-f", "deploy/compose.yaml", "ps", "-q", "worker", env=environment)
            assert len(workers.split()) == 4
    assert learned


def test_what_it_takes(deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    size = int(run("docker", "image", "inspect", "--format", "{{.Size}}", deployment.image))
    (coordinator,) = deployment.containers("coordinator")
    started = datetime.fromisoformat(deployment.inspect(coordinator)["State"]["StartedAt"])
    events = [json.loads(line) for line in run("docker", "logs", coordinator, check=False).splitlines() if "{" in line]
    # The last time, if it was started again.
    ready = datetime.fromisoformat([event["timestamp"] for event in events if event["event"] == "ready"][-1])
    took = (ready - started).total_seconds()
    template = "{{.Name}} {{.MemUsage}}"
    memory = run("docker", "stats", "--no-stream", "--format", template, *deployment.containers()).splitlines()
    with capsys.disabled():
        print(f"\nimage {size / 1e6:.0f} MB; ready {took:.1f} s after its start; memory at rest:", *memory, sep="\n  ")
    assert size < MOST_IMAGE_BYTES
    assert 0 < took < 60
