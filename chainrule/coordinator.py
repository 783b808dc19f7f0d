"""An embedded coordinator: the service as a child process, for as long as a ``with`` block lasts.

It is the same service, spoken to through the same gRPC, as one that runs for years. It lives in a session of its own,
so that Ctrl-C in a terminal reaches its owner alone; and it stops by itself when its standard input closes, which
happens even if the owner is killed.
"""

import importlib.util
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from chainrule.errors import CoordinatorError, Unavailable

LOG = "coordinator.log"


@dataclass(frozen=True)
class Coordinator:
    """One that is ready."""

    address: str
    """Where it answers gRPC: host:port."""
    metrics: str
    """The URL of its Prometheus metrics."""
    data_dir: Path
    """Where its jobs, datasets and models lie, and its log."""
    pid: int
    """Its process."""

    @property
    def log(self) -> Path:
        """What it had to say; the last line is the reason if it died."""
        return self.data_dir / LOG


def service_command(*options: str) -> list[str]:
    """The command line of the service with these options. Raises CoordinatorError if the server is not installed."""
    return _command("service", *options)


def node_command(*options: str) -> list[str]:
    """The command line of a node that computes for a coordinator elsewhere. Raises CoordinatorError as above."""
    return _command("service.node", *options)


def admin_command(*options: str) -> list[str]:
    """The command line that looks after a data directory. Raises CoordinatorError as above."""
    return _command("service.admin", *options)


def _command(module: str, *options: str) -> list[str]:
    if importlib.util.find_spec("ray") is None or importlib.util.find_spec("service") is None:
        raise CoordinatorError("this needs the server: pip install 'chainrule[server]'")
    # -P: or a folder called "service" in the working directory would be run instead.
    return [sys.executable, "-P", "-m", module, *options]


@contextmanager
def embedded(
    data_dir: Path,
    command: Sequence[str] | None = None,
    *,
    workers: int | None = None,
    start_seconds: float = 60.0,
    stop_seconds: float = 20.0,
) -> Iterator[Coordinator]:
    """Starts a coordinator with its data in `data_dir`, on free ports of this machine, and stops it at the end.

    `command` is the service's command line without options (by default this installation's), `workers` how many it is
    to have room for, at all its jobs together (by default as many as the service thinks fit). The coordinator has
    `start_seconds` to become ready and `stop_seconds` to stop before it is killed. Raises CoordinatorError if it does
    not become ready, or if the block ends with Unavailable, with the last line of its log, which is written for people.
    """
    command = service_command() if command is None else command
    data_dir = data_dir.absolute()
    data_dir.mkdir(parents=True, exist_ok=True)
    options = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--data-dir", str(data_dir)]
    options += ["--local-workers", str(workers)] if workers else []
    log = data_dir / LOG
    with log.open("ab") as errors:
        written_before = errors.tell()
        process = subprocess.Popen(
            [*command, *options, "--announce", "--until-stdin-closes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    try:
        announced = _announcement(_first_line(process, log, start_seconds))
        if announced is None:
            raise CoordinatorError(_why_not_ready(process, log, written_before, start_seconds))
        yield Coordinator(announced["grpc"], announced["metrics"], data_dir, process.pid)
    except Unavailable as error:
        raise CoordinatorError(_why_away(process, log, written_before)) from error
    finally:
        _stop(process, stop_seconds)


def _first_line(process: subprocess.Popen[bytes], log: Path, seconds: float) -> bytes:
    """What the process prints first; nothing if it ends, or the time is over, before.

    A thread reads on and puts what else comes into the log: left alone, a full pipe would bring the process to a halt.
    """
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read(stdout: IO[bytes]) -> None:
        with stdout, log.open("ab") as file:
            lines.put(stdout.readline())
            for line in stdout:
                file.write(line)
                file.flush()

    threading.Thread(target=read, args=[process.stdout], name="coordinator-output", daemon=True).start()
    try:
        return lines.get(timeout=seconds)
    except queue.Empty:
        return b""


def _announcement(line: bytes) -> dict[str, str] | None:
    """The JSON object that a coordinator prints when it is ready, or None."""
    with suppress(ValueError):
        announced = json.loads(line)
        if isinstance(announced, dict) and {"grpc", "metrics"} <= announced.keys():
            return announced
    return None


def _why_not_ready(process: subprocess.Popen[bytes], log: Path, written_before: int, seconds: float) -> str:
    try:
        status = process.wait(timeout=1)  # its output has ended, but the process may need a moment to do so
    except subprocess.TimeoutExpired:
        return f"the coordinator was not ready after {seconds:g} seconds; its log is {log}"
    return f"the coordinator did not start: {_last_words(status, log, written_before)}"


def _why_away(process: subprocess.Popen[bytes], log: Path, written_before: int) -> str:
    try:
        status = process.wait(timeout=1)
    except subprocess.TimeoutExpired:
        return f"the coordinator has stopped answering; its log is {log}"
    return f"the coordinator died: {_last_words(status, log, written_before)}"


def _last_words(status: int, log: Path, written_before: int) -> str:
    """The last line that this run wrote to the log, leaving alone what was in it before."""
    if status < 0:  # it had no chance to write a reason
        return f"it was killed by {signal.Signals(-status).name}; its log is {log}"
    lines = log.read_bytes()[written_before:].decode("utf-8", errors="replace").splitlines()
    written = [line.strip() for line in lines if line.strip()]
    return written[-1] if written else f"it ended with status {status} and left no reason in {log}"


def _stop(process: subprocess.Popen[bytes], patience: float) -> None:
    """Asks, then insists, then kills. Does nothing if it has ended."""
    if process.stdin is not None:
        process.stdin.close()
    for insist in (process.terminate, lambda: os.killpg(process.pid, signal.SIGKILL)):
        try:
            process.wait(timeout=patience)
            return
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                insist()
            patience = min(patience, 5.0)
    process.wait()
