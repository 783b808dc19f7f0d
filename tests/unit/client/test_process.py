"""The command line as a process: what it imports, and what Ctrl-C does to it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.client.fakes import FakeService

ROOT = Path(__file__).parents[3]
COMMAND = (sys.executable, "-m", "chainrule")
# Runs `train` with an embedded coordinator that is the fake one.
EMBEDDED = (
    sys.executable,
    "-c",
    "import sys; from chainrule.cli import main; from chainrule.cli.run import Launch; "
    "main(obj=Launch((sys.executable, '-m', 'tests.unit.client.fake_coordinator', 'endless')))",
)


def test_the_client_needs_no_server() -> None:
    code = (
        "import sys, chainrule, chainrule.cli; "
        "print({name.partition('.')[0] for name in sys.modules} & {'ray', 'service', 'worker', 'sklearn'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("set()\n", "")


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Children can be interrupted, also where the tests run in the background, as whose children they could not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def interrupt(command: list[str], ready: Callable[[], bool]) -> tuple[int, str, str]:
    """Starts a command, presses Ctrl-C once it is ready, and returns its exit code and output."""
    environment = {name: value for name, value in os.environ.items() if name != "CHAINRULE_SERVER"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    ) as process:
        try:
            wait_for(ready)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    return process.returncode, out, err


@pytest.fixture
def job_file(tmp_path: Path) -> str:
    """A job of a dataset that nobody asks about."""
    (tmp_path / "job.yaml").write_text("data: {dataset: cats}")
    return str(tmp_path / "job.yaml")


def test_ctrl_c_detaches_from_a_server(service: FakeService, job_file: str) -> None:
    service.training.endless = True
    command = [*COMMAND, "train", job_file, "--server", service.address]
    code, _, err = interrupt(command, lambda: bool(service.training.watched_after))
    assert code == 130
    assert err.splitlines() == [
        "jobs/j1 goes on.",
        f"  watch it:   chainrule jobs watch j1 --server {service.address}",
        f"  cancel it:  chainrule jobs cancel j1 --server {service.address}",
    ]


def test_ctrl_c_cancels_without_a_server(job_file: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    # Its output goes to a file, so that the test can see how far it got.
    with (
        out.open("w") as file,
        subprocess.Popen(
            [*EMBEDDED, "train", job_file, "--data-dir", str(tmp_path / "run")],
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        ) as process,
    ):
        try:
            wait_for(lambda: "RUNNING" in out.read_text())
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()
    # The last line: gRPC's own thread complains before it, once in a while, of a channel that closes under a call.
    assert (process.returncode, err.splitlines()[-1]) == (1, "chainrule: jobs/j1 was cancelled")


def test_a_closed_pipe_is_no_reason_to_complain(service: FakeService) -> None:
    for name in "abc":
        service.datasets.files[f"datasets/{name}"] = b""
    command = " ".join([*COMMAND, "datasets", "list", "--json", "--server", service.address])
    done = subprocess.run(["bash", "-c", f"{command} | true"], capture_output=True, text=True, check=True, cwd=ROOT)  # noqa: S607
    assert done.stderr == ""
