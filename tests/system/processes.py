"""Programs as a user starts them, and a look at every process that comes of them: none may be left behind."""

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

SECONDS = 90.0
"""The deadline of every wait: far beyond what any of them takes."""

MARK = "TEST_PROGRAM"
NO_SESSION = 0


class Program:
    """A program that was started, with its output in files."""

    def __init__(self, command: Sequence[str], directory: Path, environment: Mapping[str, str]) -> None:
        self._mark = f"{MARK}={uuid.uuid4()}"
        self._sessions: set[int] = set()
        directory.mkdir(exist_ok=True)
        self._out, self._err = directory / f"{self._mark[-6:]}.out", directory / f"{self._mark[-6:]}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                env={**environment, MARK: self._mark.partition("=")[2]},
                start_new_session=True,
            )

    @property
    def stdout(self) -> str:
        """What it has written, so far."""
        return self._out.read_text()

    @property
    def stderr(self) -> str:
        """What it has complained about, so far."""
        return self._err.read_text()

    def has_ended(self) -> bool:
        """Whether the program itself has ended, whatever it started."""
        return self._process.poll() is not None

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the program alone."""
        self._process.send_signal(number)

    def close_stdin(self) -> None:
        """Ends its input, which may have ended before."""
        if self._process.stdin:
            with suppress(BrokenPipeError):
                self._process.stdin.close()

    def result(self) -> int:
        """Waits for its end; gives the exit code, or the negative number of the signal that ended it."""
        # Looks at the processes meanwhile: some can't be told to be the program's once their parents are gone.
        until(lambda: self.processes() is not None and self.has_ended())
        return self._process.wait()

    def processes(self) -> set[int]:
        """Every process that came of it and is still there.

        Each inherits the mark, but some write over it; those are known by their session.
        """
        sessions = {
            int(path.name): _session(int(path.name)) for path in Path("/proc").iterdir() if path.name.isdecimal()
        }
        marked = {process for process in sessions if self._mark.encode() in _read(process, "environ").split(b"\0")}
        self._sessions |= {sessions[process] for process in marked} - {NO_SESSION, os.getsid(0)}
        return marked | {process for process, session in sessions.items() if session in self._sessions}

    def named(self, title: str) -> list[int]:
        """Those of its processes that are called so."""
        return sorted(process for process in self.processes() if _read(process, "cmdline").startswith(title.encode()))

    def kill_all(self) -> None:
        """Kills whatever came of it."""
        for process in self.processes():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self._process.wait()


@contextmanager
def started(command: Sequence[str], directory: Path, **environment: str) -> Iterator[Program]:
    """Starts a program, with its output and whatever it keeps for its user in `directory`.

    At the end its standard input closes, it has to end, and all of its processes with it.
    """
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("CHAINRULE_", "RAY_", "XDG_"))
    }
    program = Program(command, directory, {**inherited, "XDG_DATA_HOME": str(directory / "home"), **environment})
    try:
        yield program
        program.close_stdin()
        program.result()
        until(lambda: not program.processes())
    finally:
        program.close_stdin()
        program.kill_all()


def run(command: Sequence[str], directory: Path, **environment: str) -> tuple[int, str, str]:
    """Runs a program without input to its end; gives its exit code and what it wrote to both outputs."""
    with started(command, directory, **environment) as program:
        program.close_stdin()
        return program.result(), program.stdout, program.stderr


def until(condition: Callable[[], object]) -> None:
    """Waits until the condition holds. Raises TimeoutError."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {SECONDS:g} seconds")
        time.sleep(0.05)


def _session(process: int) -> int:
    """The process's session; none if it has ended, though its parent may not have noticed."""
    _, _, fields = _read(process, "stat").rpartition(b") ")
    state, _, _, session, *_ = fields.split() or [b"Z", b"", b"", b""]
    return int(session) if state != b"Z" else NO_SESSION


def _read(process: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{process}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
