"""A coordinator in a process of its own, and all the processes that come of it.

It is started in a directory of its own, which its children inherit: by that they are told from those of others, also
when their parent is gone.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TypeVar

import grpc

SECONDS = 120.0
"""The deadline of every wait: far beyond what any of them takes."""

ROOT = Path(__file__).parents[2].resolve()
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lies on Linux
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Ray's own; they take up to a minute to end when their raylet was killed."""

OPTIONS = ("--checkpoint-seconds", "0.3", "--worker-answer-seconds", "4", "--worker-join-seconds", "10",
           "--trainer-answer-seconds", "6")  # fmt: skip

T = TypeVar("T")


class NotSurvived(Exception):
    """Something did not go as it should; the message says what."""


def until(condition: Callable[[], T], what: str, seconds: float = SECONDS) -> T:
    """Waits until the condition holds, and returns what it gives. Raises NotSurvived."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise NotSurvived(f"{what}: not within {seconds:g} seconds")
        time.sleep(0.02)
    return result


class Coordinator:
    """A coordinator on a directory. It can be ended, in many ways, and started again."""

    def __init__(self, home: Path, data: Path | None = None) -> None:
        """Its processes run in `home`; what it keeps is in `data`, by default a directory in there."""
        self.home = home.resolve()
        self.data = data or self.home / "data"
        self.log = self.home / "log"
        self._channel: grpc.Channel | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, and waits until it is ready."""
        options = [*OPTIONS, "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--announce"]
        command = [
            sys.executable,
            "-P",
            "-m",
            "service",
            *options,
            "--until-stdin-closes",
            "--data-dir",
            str(self.data),
        ]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.home,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        line = _line(self._process.stdout)
        if not line:
            raise NotSurvived(f"the coordinator did not start: {self.last_words()}")
        self._channel = grpc.insecure_channel(json.loads(line)["grpc"])

    @property
    def channel(self) -> grpc.Channel:
        """A channel to it; closed when it ends."""
        assert self._channel is not None
        return self._channel

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        """Ends it as its parent would, and waits until it and all that came of it is gone."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        if code := self.ended():
            raise NotSurvived(f"the coordinator ended with code {code}: {self.last_words()}")

    def kill(self, number: signal.Signals) -> None:
        """Sends it a signal that ends it, and waits until it has ended."""
        os.kill(self.pid, number)
        self.ended()

    def ended(self) -> int:
        """Waits until it has ended; returns its exit code."""
        process, self._process = self._process, None
        assert process is not None
        try:
            return process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise NotSurvived(f"the coordinator did not end within {SECONDS:g} seconds") from None
        finally:
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with suppress(BrokenPipeError):
                        stream.close()
            if self._channel is not None:
                self._channel.close()

    def processes(self, name: str = "") -> list[int]:
        """The processes that came of it and are alive, whose command contains `name`; not itself, while it runs."""
        own = self._process.pid if self._process else 0
        return sorted(pid for pid, command in _commands(self.home) if name in command and pid != own)

    def workers(self) -> list[int]:
        """Its worker processes."""
        return self.processes("ray::Worker")

    def trainers(self) -> list[int]:
        """Its trainer processes."""
        return self.processes("ray::TrainerActor")

    def shared_memory(self) -> list[str]:
        """The segments and semaphores that are its own."""
        instance = self.data / "instance"
        prefix = f"chainrule-{instance.read_text()}-" if instance.exists() else "chainrule-?"
        return [path.name for path in SHARED_MEMORY.iterdir() if path.name.removeprefix("sem.").startswith(prefix)]

    def check_nothing_left(self) -> None:
        """Raises NotSurvived if a process or some shared memory outlives the coordinator."""
        try:
            until(lambda: not self.processes(), "the coordinator's processes end")  # Ray's take up to a minute
        except NotSurvived:
            left = [command for _, command in _commands(self.home)]
            self.end_all()
            raise NotSurvived(f"processes were left: {left}") from None
        if left := self.shared_memory():
            raise NotSurvived(f"shared memory was left: {left}")

    def end_all(self) -> None:
        """Ends whatever is still there, in whatever state."""
        for pid, _ in _commands(self.home, but_agents=False):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._process is not None:
            with suppress(NotSurvived):
                self.ended()

    def last_words(self) -> str:
        """The last lines of its log."""
        return " | ".join(self.log.read_text(errors="replace").splitlines()[-3:])


@contextmanager
def running(home: Path, data: Path | None = None) -> Iterator[Coordinator]:
    """A coordinator that is started, and stopped in the end; then nothing of it may be left."""
    home.mkdir(parents=True, exist_ok=True)
    coordinator = Coordinator(home, data)
    try:
        coordinator.start()
        yield coordinator
        coordinator.stop()
        coordinator.check_nothing_left()
    finally:
        coordinator.end_all()


def _commands(home: Path, *, but_agents: bool = True) -> Iterator[tuple[int, str]]:
    """The processes that run in a directory, and their command lines. Zombies have none."""
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            with suppress(OSError):
                command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if (path / "cwd").readlink() == home and not (but_agents and command.startswith(AGENTS)):
                    yield int(path.name), command


def _line(stream: IO[bytes] | None) -> bytes:
    """The first line of a stream, or nothing if it ends before."""
    assert stream is not None
    return stream.readline()
