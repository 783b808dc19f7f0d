"""The line that the command prints is one that the service takes."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from chainrule.cli import main
from service.access.principals import Principal, Scope
from service.access.tokens import read_tokens


@pytest.mark.parametrize("scope", list(Scope))
def test_the_line_lets_its_token_in(scope: Scope, tmp_path: Path) -> None:
    arguments = ["admin", "token", "a.lice_1@example-org", "--scope", scope.name.lower(), "--json"]
    made = json.loads(CliRunner().invoke(main, arguments).output)
    path = tmp_path / "tokens"
    path.write_text(f"{made['line']}\n")
    path.chmod(0o600)
    assert read_tokens(path).principal(made["token"]) == Principal("a.lice_1@example-org", scope)
