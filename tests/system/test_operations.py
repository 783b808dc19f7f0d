"""The commands of docs/operations.md, as somebody types them who looks after a coordinator."""

import re
import socket
import sys
from pathlib import Path

import pytest

from tests.api.running import FLOWERS, serving
from tests.system.processes import run

pytestmark = pytest.mark.system
PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
PORTS = ("50051", "9464")


def commands() -> list[str]:
    """Those of the page, in order."""
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    assert all(line.startswith("$ ") for line in lines)
    return [line.removeprefix("$ ") for line in lines]


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])


def test_the_page_is_what_works(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with serving(tmp_path / "data", checkpoint_seconds=0.0) as service:  # so that there is something to look after
        service.upload("flowers", FLOWERS)
        made = service.end(service.create(epochs=2).name).name
    script = "\n".join(["set -eu", f"cd {tmp_path}", *commands()])
    for port in PORTS:
        script = script.replace(port, free_port())
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    code, out, err = run(["bash", "-c", script], tmp_path / "output", PATH=path)
    assert code == 0, f"{out}\n{err}\n{(tmp_path / 'coordinator.log').read_text()[-2000:]}"
    assert made[5:] in out  # in the list of the one that was started last
    assert out.count("all is sound") == 3
    for backup in ("backups/monday", "backups/before-the-upgrade", "restored"):
        assert (tmp_path / backup / "models" / made[5:] / "model.safetensors").is_file()
    assert (tmp_path / "monday.tar").stat().st_size > 10_000
