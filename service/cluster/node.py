"""This machine as a node of a Ray cluster that spans machines: as its head, or as one that offers workers to it.

`ray start --block` does the work, as a child that ends with its parent, so that nothing is left when a container or a
terminal goes.
"""

import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from service.cluster.cluster import ClusterError

START_SECONDS = 60.0
"""How long a node may take to start."""

STOP_SECONDS = 10.0
"""How long it may take to end before it is killed."""

SHARED_MEMORY = "/dev/shm"  # noqa: S108 - where the kernel has it

LEAST_SHARED_BYTES = 256 << 20
"""What it must have room for. Docker gives 64 MB where nothing is said, less than Ray's store of objects needs."""

CONNECT_SECONDS = 5.0

TERMS_SECONDS = 20.0
"""How much longer than it is told to, the process may take that listens for a coordinator: to start, and for a call."""

ADDRESS = re.compile(r"[^/:\[\]]+:[0-9]{1,5}")

STARTED = "Ray runtime started"

PR_SET_PDEATHSIG = 1

TOKENS = "RAY_AUTH_TOKEN_PATH must name a file with the same token on every machine of the cluster"


class Node:
    """A running `ray start --block`. Raises ClusterError if it doesn't get as far as that."""

    def __init__(self, *options: str) -> None:
        check_token()
        check_shared_memory()
        # No colours and no wrapping: the lines are read here.
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--log-style=record", *options]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(os.environ),
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C is for its parent, which then ends it in order
            preexec_fn=_end_with_parent,
        )
        self._lines: deque[str] = deque(maxlen=200)
        self._is_started = False
        self._told = threading.Event()
        threading.Thread(target=self._read, name="ray-node", daemon=True).start()
        self._told.wait(START_SECONDS)
        if not self._is_started:
            self.close()
            raise ClusterError(why_not_started(list(self._lines)))

    def runs(self) -> bool:
        """Whether it hasn't ended."""
        return self._process.poll() is None

    def close(self) -> None:
        """Ends it."""
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout  # noqa: S101 - as it was asked for
        with self._process.stdout as lines:
            for line in lines:
                self._lines.append(line.rstrip())
                if STARTED in line:
                    self._is_started = True
                    self._told.set()
        self._told.set()


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """What a node is started with."""
    # Without a mode `ray start --head` wants a token wherever Ray once left one in the home directory, and those who
    # join, this process among them, bring none.
    defaults = {"RAY_worker_niceness": "0", "RAY_AUTH_MODE": "disabled"}
    return {**defaults, **given, "RAY_USAGE_STATS_ENABLED": "0"}


@contextmanager
def head(host: str, port: int, workers: int) -> Iterator[str]:
    """The head of a cluster that others reach at HOST:PORT, with room for some workers; gives its address.

    Raises ClusterError.
    """
    try:
        here = socket.gethostbyname(host)
    except OSError as error:
        raise ClusterError(f"--ray-listen: there is no address for {host!r}: {error.strerror}") from error
    if os.environ.get("RAY_AUTH_MODE") != "token" and not here.startswith("127."):
        raise ClusterError(f"whoever reaches {host}:{port} could run code here; set RAY_AUTH_MODE=token, and {TOKENS}")
    node = Node(
        "--head",
        f"--node-ip-address={here}",
        f"--port={port}",
        f"--num-cpus={workers}",
        "--include-dashboard=false",
        "--disable-usage-stats",
    )
    try:
        yield f"{here}:{port}"
    finally:
        node.close()


def join(address: str, workers: int) -> Node:
    """Joins the cluster at HOST:PORT with some workers. Raises ClusterError."""
    host, _, port = address.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, int(port)))  # nothing is sent: the kernel only chooses a route
        here = probe.getsockname()[0]
    return Node(f"--address={address}", f"--node-ip-address={here}", f"--num-cpus={workers}", "--disable-usage-stats")


@contextmanager
def beside(address: str) -> Iterator[None]:
    """A node of the cluster at an address on this machine, where trainers run: one without workers, if none is there.

    Where the address names no HOST:PORT, Ray itself finds the node that is meant. Raises ClusterError.
    """
    if not ADDRESS.fullmatch(address) or not answers(address) or _runs_here(address):
        yield
        return
    node = join(address, 0)
    try:
        yield
    finally:
        node.close()


def _runs_here(address: str) -> bool:
    """Whether a node of a cluster runs on this machine, as its command line tells."""
    host, _, port = address.rpartition(":")
    flags = {f"--gcs-address={name}:{port}".encode() for name in (host, socket.gethostbyname(host))}
    commands = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            commands.append((process / "cmdline").read_bytes().split(b"\0"))
    return any(command[0].endswith(b"raylet") and flags & set(command) for command in commands)


def check_token() -> None:
    """Raises ClusterError if Ray is to use a token and there is none."""
    if os.environ.get("RAY_AUTH_MODE") != "token" or os.environ.get("RAY_AUTH_TOKEN"):
        return
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        empty = not path.read_bytes().strip()
    except OSError as error:
        raise ClusterError(f"can't read the cluster's token {path}: {error.strerror}; {TOKENS}") from error
    if empty:
        raise ClusterError(f"the cluster's token {path} is empty; {TOKENS}")


def check_shared_memory() -> None:
    """Raises ClusterError if there is too little of it for Ray's store of objects."""
    with suppress(OSError):
        size = shutil.disk_usage(SHARED_MEMORY).total
        if size < LEAST_SHARED_BYTES:
            raise ClusterError(
                f"{SHARED_MEMORY} has {size >> 20} MiB and must have {LEAST_SHARED_BYTES >> 20} or more: give the "
                "container a larger shm_size, such as 1g"
            )


def await_head(address: str, seconds: float) -> None:
    """Waits until somebody listens at HOST:PORT. Raises ClusterError."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ClusterError(f"the cluster's address is {address!r}; must be HOST:PORT, such as coordinator:6379")
    deadline = time.monotonic() + seconds
    while not answers(address):
        if time.monotonic() >= deadline:
            raise ClusterError(
                f"no cluster answers at {address} within {seconds:g} seconds; is the coordinator up, and was it "
                "started with --ray-listen?"
            )
        time.sleep(0.5)


def check_terms(address: str, seconds: float) -> None:
    """Raises ClusterError unless the coordinator of a cluster says in time that this machine may work for it."""
    command = [sys.executable, "-m", "service.cluster.terms", address, str(seconds)]
    try:
        done = subprocess.run(
            command,
            env=environment(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds + TERMS_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(f"Ray's store of names at {address} didn't answer in time; is that Ray all right?") from None
    if done.returncode:
        raise ClusterError(next(iter(done.stderr.splitlines()[-1:]), "Ray's store of names can't be read"))


def answers(address: str) -> bool:
    """Whether somebody listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def why_not_started(lines: list[str]) -> str:
    """What `ray start` printed, in one line that says what can be done."""
    text = "\n".join(lines)
    if "AuthenticationError" in text:
        return f"the cluster doesn't take this machine's token; {TOKENS}"
    if "Version mismatch" in text:
        versions = [line.strip() for line in lines if line.strip().startswith(("Ray:", "Python:"))]
        theirs, ours = "; ".join(versions[:2]), "; ".join(versions[2:4])
        return f"the cluster has {theirs}, and this machine {ours}; run the same image on both"
    if "used by other components" in text:
        return "Ray keeps the ports 10002 to 19999 for its workers, and some others; choose one such as 6379"
    if "address already in use" in text.lower() or "is already in use" in text:
        return "Ray's port is taken; is another cluster running on this machine?"
    last = next((line for line in reversed(lines) if line.strip()), "it printed nothing")
    return f"Ray didn't start: {last}"


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
