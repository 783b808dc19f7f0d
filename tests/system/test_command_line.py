"""The command `chainrule` as a user runs it: with a coordinator of its own, and with one that others use too."""

import json
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from chainrule.v1.training_job_pb2 import TrainingJob
from tests.system.coordinator import Coordinator
from tests.system.processes import run, started, until

pytestmark = pytest.mark.system

DIGITS = Path(__file__).parents[2] / "examples" / "digits.yaml"


def command(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("chainrule")), *arguments]


def parsed(out: str) -> list[dict[str, Any]]:
    """Standard output with --json: an object a line, and nothing else."""
    return [json.loads(line) for line in out.splitlines()]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of a run without a server."""
    code, out, err = run(command("train", str(DIGITS), "--json"), tmp_path_factory.mktemp("embedded"))
    assert code == 0, err
    *events, result = parsed(out)
    assert [int(event["event"]["number"]) for event in events] == list(range(1, len(events) + 1))
    return result


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Sees to it that a child reacts to SIGINT: it would inherit that it is ignored, as it is in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_training_without_a_server(embedded: dict[str, Any]) -> None:
    assert embedded["state"] == "SUCCEEDED"
    assert embedded["validation_accuracy"] >= 0.95
    assert 0 < embedded["training_loss"] < 0.1
    assert 0 < embedded["validation_loss"] < 0.3
    assert len(bytes.fromhex(embedded["parameters_sha256"])) == 32


@pytest.mark.parametrize("workers", [1, 3])
def test_training_on_a_server_gives_the_same_bits(
    coordinator: Coordinator, embedded: dict[str, Any], workers: int, tmp_path: Path
) -> None:
    arguments = ("train", str(DIGITS), "--json", "--workers", str(workers))
    code, out, err = run(command(*arguments, "--server", coordinator.grpc), tmp_path)
    assert code == 0, err
    *_, result = parsed(out)
    assert (result["state"], result["parameters_sha256"]) == ("SUCCEEDED", embedded["parameters_sha256"])


def test_the_demo(tmp_path: Path, embedded: dict[str, Any]) -> None:
    code, out, err = run(command("demo", "--data-dir", str(tmp_path / "data")), tmp_path)
    assert code == 0, err
    assert embedded["parameters_sha256"] in out
    assert (tmp_path / "data" / "digits.safetensors").stat().st_size > 10_000


def test_an_interrupted_run_is_cancelled_and_leaves_no_process(tmp_path: Path, interruptible: None) -> None:  # noqa: ARG001
    job = tmp_path / "long.yaml"
    job.write_text(DIGITS.read_text().replace("epochs: 30", "epochs: 10000"))
    with started(command("train", str(job), "--json"), tmp_path) as program:
        until(lambda: "epoch_completed" in program.stdout or program.has_ended())
        program.send(signal.SIGINT)
        assert program.result() == 1, program.stderr
    *_, result = parsed(program.stdout)
    assert result["state"] == "CANCELLED"


def test_an_interrupted_watch_leaves_the_job_alone(
    coordinator: Coordinator,
    tmp_path: Path,
    interruptible: None,  # noqa: ARG001
) -> None:
    with started(command("train", str(DIGITS), "--json", "--server", coordinator.grpc), tmp_path) as program:
        until(lambda: "epoch_completed" in program.stdout or program.has_ended())
        program.send(signal.SIGINT)
        assert program.result() == 130, program.stderr
    events = parsed(program.stdout)
    assert not any("state" in event for event in events)
    name = program.stderr.split(" goes on.")[0].split()[-1]
    assert coordinator.client.wait(name).state == TrainingJob.SUCCEEDED


@pytest.mark.parametrize("arguments", [("train", str(DIGITS)), ("jobs", "list"), ("models", "list")])
def test_a_server_that_is_away(arguments: Sequence[str], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and not listened at
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, out, err = run(command(*arguments, "--server", address), tmp_path)
    assert (code, out, err.count("\n")) == (3, "", 1), err
    assert err.startswith("chainrule: ")
    assert address in err
