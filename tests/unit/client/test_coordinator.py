"""The embedded coordinator, with a stand-in for the service."""

import os
import sys
import time
from pathlib import Path

import pytest

from chainrule import Client, CoordinatorError
from chainrule.coordinator import embedded
from chainrule.v1.training_job_pb2 import TrainingJobSpec

FAKE = (sys.executable, "-m", "tests.unit.client.fake_coordinator")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_answers_and_then_stops(tmp_path: Path) -> None:
    with embedded(tmp_path / "new" / "folder", [*FAKE, "well"]) as coordinator, Client(coordinator.address) as client:
        assert client.create_job(TrainingJobSpec()).name == "jobs/j1"
        assert coordinator.metrics == "http://127.0.0.1:9/metrics"
        assert coordinator.data_dir == tmp_path / "new" / "folder"
        assert os.getsid(coordinator.pid) != os.getsid(0)  # Ctrl-C in this terminal does not reach it
    assert not alive(coordinator.pid)
    assert coordinator.log.read_text().startswith("starting\n")


@pytest.mark.parametrize(
    ("behaviour", "complaint"),
    [
        ("dies", "the coordinator did not start: .* is in use by another coordinator"),
        ("silent", "the coordinator was not ready after 1 seconds; its log is .*coordinator.log"),
        ("mumbles", "the coordinator was not ready after"),
    ],
)
def test_it_is_said_why_one_does_not_start(tmp_path: Path, behaviour: str, complaint: str) -> None:
    (tmp_path / "coordinator.log").write_text("of an earlier run\n")
    start = time.monotonic()
    seconds = 20 if behaviour == "dies" else 1
    with (
        pytest.raises(CoordinatorError, match=complaint),
        embedded(tmp_path, [*FAKE, behaviour], start_seconds=seconds, stop_seconds=0.1),
    ):
        pass
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    ("death", "words"),
    [
        ("sys.exit(7)", "it ended with status 7 and left no reason"),
        ("os.kill(os.getpid(), 9)", "it was killed by SIGKILL; its log is"),
    ],
)
def test_a_death_without_words(tmp_path: Path, death: str, words: str) -> None:
    (tmp_path / "coordinator.log").write_text("of an earlier run\n")
    command = [sys.executable, "-c", f"import os, sys; {death}"]
    with pytest.raises(CoordinatorError, match=words), embedded(tmp_path, command):
        pass


def watch_a_job(folder: Path, behaviour: str) -> None:
    with embedded(folder, [*FAKE, behaviour]) as coordinator, Client(coordinator.address) as client:
        client.create_job(TrainingJobSpec())
        list(client.watch("j1", patience=0.2))


def test_one_that_dies_later(tmp_path: Path) -> None:
    with pytest.raises(CoordinatorError, match="the coordinator died: the disk is full"):
        watch_a_job(tmp_path, "dies-later")


def test_one_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    with embedded(tmp_path, [*FAKE, "stubborn"], stop_seconds=0.5) as coordinator:
        pass
    assert not alive(coordinator.pid)


def test_it_stops_when_its_owner_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), embedded(tmp_path, [*FAKE, "well"]) as coordinator:
        raise ZeroDivisionError
    assert not alive(coordinator.pid)
