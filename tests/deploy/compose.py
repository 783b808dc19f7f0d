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


def run(*command: str, env: dict[str, str] | None = None, check: bool = True) -> str:
    """The output of a command. Raises AssertionError with it if the command fails."""
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **(env or {})}, text=True, capture_output=True, timeout=600, check=False
    )
    assert not check or done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}\n{done.stderr}"
    return done.stdout + (done.stderr if not check else "")


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

    def compose(self, *words: str, check: bool = True) -> str:
        """Runs `docker compose` on it."""
        files = [word for file in self.files for word in ("-f", file)]
        env = {"CHAINRULE_IMAGE": IMAGE, "CHAINRULE_PORT": str(self.port), "CHAINRULE_WEB_PORT": str(self.web_port)}
        return run("docker", "compose", "-p", PROJECT, *files, *words, env=env, check=check)

    def up(self, *services: str, workers: int = 2) -> None:
        """Brings services up, and waits until they are well."""
        self.compose(
            "up", "-d", "--no-build", "--wait", "--wait-timeout", "180", f"--scale=worker={workers}", *services
        )

    def client_env(self) -> dict[str, str]:
        """What a client on this machine is told by the environment."""
        secrets = ROOT / "deploy" / "secrets"
        return {
            "CHAINRULE_SERVER": f"grpcs://localhost:{self.port}",
            "CHAINRULE_CA": str(secrets / "ca.pem"),
            "CHAINRULE_TOKEN_FILE": str(secrets / "api_token"),
        }

    def containers(self, service: str) -> list[str]:
        """The ids of a service's containers."""
        return self.compose("ps", "-q", service).split()

    def kill(self, container: str) -> None:
        """Ends all of a container's processes, as the kernel does when memory is short. Docker starts it again."""
        os.kill(int(self.inspect(container)["State"]["Pid"]), 9)

    def inspect(self, container: str) -> Any:
        """What Docker knows of a container."""
        return json.loads(run("docker", "inspect", container))[0]
