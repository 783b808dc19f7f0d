"""A coordinator that can't start says why, in a line, and ends with exit code 2."""

import socket
from pathlib import Path

import pytest

from chainrule.coordinator import service_command
from tests.system.coordinator import Coordinator
from tests.system.processes import run

pytestmark = pytest.mark.system

FREE = ("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0")


def refusal(directory: Path, *options: str) -> str:
    """The line that it ends with."""
    code, out, err = run(service_command(*FREE, "--data-dir", str(directory / "data"), *options), directory)
    # gRPC has a line of its own to say about a port.
    lines = [line for line in err.splitlines() if "add_port.cc" not in line]
    assert (code, out, len(lines)) == (2, "", 1), err
    return lines[0]


def test_a_data_directory_that_is_in_use(coordinator: Coordinator, tmp_path: Path) -> None:
    line = refusal(tmp_path, "--data-dir", coordinator.data_dir)
    assert line.startswith(f"the data directory {coordinator.data_dir} is in use by another coordinator")


def test_a_port_that_is_taken(coordinator: Coordinator, tmp_path: Path) -> None:
    line = refusal(tmp_path, "--listen", coordinator.grpc)
    assert line.startswith(f"can't listen at {coordinator.grpc}: it is taken")


def test_an_address_that_is_none(tmp_path: Path) -> None:
    assert refusal(tmp_path, "--listen", "nonsense") == (
        "--listen: is 'nonsense'; must be HOST:PORT, such as 127.0.0.1:50051"
    )


def test_a_ray_cluster_that_is_away(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and not listened at
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        line = refusal(tmp_path, "--ray-address", address)
    assert line.startswith(f"can't join the Ray cluster at {address}: ")
