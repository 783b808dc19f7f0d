"""What holds for every command: output for programs, and completion by the shell."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import grpc
import pytest
from click.testing import CliRunner
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from chainrule.cli import main

WITHOUT_JSON = {"serve", "worker", "completion"}
"""The first two become another program, with output of its own; the third prints a script."""


def leaves(command: click.Command, *names: str) -> Iterator[tuple[str, click.Command]]:
    """The commands that are no groups, by what is typed for them."""
    if not isinstance(command, click.Group):
        yield " ".join(names), command
        return
    for name, inner in command.commands.items():
        yield from leaves(inner, *names, name)


COMMANDS = dict(leaves(main))


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_output_for_programs(name: str) -> None:
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    assert ("--json" in options) != (name in WITHOUT_JSON)


def test_health_is_told_to_programs() -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    healthy = health.HealthServicer()
    healthy.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        result = CliRunner().invoke(main, ["health", "--json", "--server", address])
        assert json.loads(result.stdout) == {"server": address, "ready": True}
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_script_for_each_shell(shell: str) -> None:
    script = CliRunner().invoke(main, ["completion", shell]).stdout
    assert f"_CHAINRULE_COMPLETE={shell}_complete" in script


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_bash_completes_with_it(tmp_path: Path) -> None:
    """As bash does when the tabulator is pressed, by what the script has told it to do."""
    program = tmp_path / "chainrule"
    program.write_text(f"#!{sys.executable}\nfrom chainrule.cli import main\nmain(prog_name='chainrule')\n")
    program.chmod(0o700)
    script = """
        eval "$(chainrule completion bash)"
        complete -p chainrule >/dev/null || exit 3
        COMP_WORDS=(chainrule jobs pa) COMP_CWORD=2
        _chainrule_completion chainrule
        COMP_WORDS=(chainrule admin token alice --scope a) COMP_CWORD=5
        _chainrule_completion chainrule
        echo "${COMPREPLY[@]}"
    """
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        ["bash", "-c", script],  # noqa: S607 - whichever bash the machine has
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "pause admin\n", "")
