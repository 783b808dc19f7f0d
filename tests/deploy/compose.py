"""The Compose file, brought up for a test under a name and a port of its own."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROJECT = "chainrule-test"
IMAGE = "chainrule:test"
NEWER_IMAGE = "chainrule:test-newer"
WATCHERS = {"prometheus": "prom/prometheus:v3.5.0", "alertmanager": "prom/alertmanager:v0.28.1"}
"""Which images of others the tests start, by their programs."""


def run(*command: str, env: dict[str, str] | None = None, check: bool = True) -> str:
    """The output of a command. Raises AssertionError with it if the command fails."""
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **(env or {})}, text=True, capture_output=True, timeout=600, check=False
    )
    assert not check or done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}\n{done.stderr}"
    return done.stdout + (done.stderr if not check else "")


def build(image: str, *options: str) -> None:
    """Builds the product's image."""
    run("docker", "build", "-q", "-f", "deploy/Dockerfile", "-t", image, *options, ".")


def have_watchers() -> None:
    """Sees to it that the images of others run here: as they are, as they can be pulled, or by a stand-in."""
    for program, image in WATCHERS.items():
        if not run("docker", "run", "--rm", image, "--version", check=False).startswith(program):
            run("docker", "build", "-q", "--build-arg", f"PROGRAM={program}", "-t", image, "tests/deploy/stand_in")


def free_port() -> int:
    """A port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(what: str, true: Callable[[], bool], seconds: float) -> None:
    """Waits until something is so. Raises AssertionError if it never is."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"{what} did not come about within {seconds:g} seconds"
        time.sleep(0.2)


@dataclass(frozen=True)
class Deployment:
    """What is up."""

    port: int
    web_port: int
    files: Sequence[str]
    image: str = IMAGE

    def compose(self, *words: str, check: bool = True) -> str:
        """Runs `docker compose` on it."""
        files = [word for file in self.files for word in ("-f", file)]
        env = {
            "COMPOSE_PROFILES": "alerts",
            "CHAINRULE_IMAGE": self.image,
            "CHAINRULE_PORT": str(self.port),
            "CHAINRULE_WEB_PORT": str(self.web_port),
        }
        return run("docker", "compose", "-p", PROJECT, *files, *words, env=env, check=check)

    def up(self, *services: str, workers: int = 2) -> None:
        """Brings services up, and waits until they are well."""
        self.compose(
            "up", "-d", "--no-build", "--wait", "--wait-timeout", "180", f"--scale=worker={workers}", *services
        )

    def down(self) -> None:
        """Removes whatever is there of it, and what it kept."""
        self.compose("down", "-v", "--remove-orphans", check=False)

    def client_env(self) -> dict[str, str]:
        """What a client on this machine is told by the environment."""
        secrets = ROOT / "deploy" / "secrets"
        return {
            "CHAINRULE_SERVER": f"grpcs://localhost:{self.port}",
            "CHAINRULE_CA": str(secrets / "ca.pem"),
            "CHAINRULE_TOKEN_FILE": str(secrets / "api_token"),
        }

    def containers(self, *services: str) -> list[str]:
        """The ids of some services' containers; of all, where none is named."""
        return self.compose("ps", "-q", *services).split()

    def measured(self, expression: str) -> list[float]:
        """What Prometheus answers to an expression: the value of each series."""
        query = ("promtool", "query", "instant", "--format=json", "http://127.0.0.1:9090", expression)
        return [float(series["value"][1]) for series in json.loads(self.compose("exec", "-T", "prometheus", *query))]

    def kill(self, container: str) -> None:
        """Ends all of a container's processes, as the kernel does when memory is short. Docker starts it again."""
        os.kill(int(self.inspect(container)["State"]["Pid"]), 9)

    def inspect(self, container: str) -> Any:
        """What Docker knows of a container."""
        return json.loads(run("docker", "inspect", container))[0]
