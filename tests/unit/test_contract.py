"""The contract keeps what the last release promised, and its reference tells of all of it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.api.server import SERVICES

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ROOT / "protos"
REFERENCE = (ROOT / "docs" / "api.md").read_text()
TRAINING = "chainrule/v1/training_service.proto"

TAKEN_AWAY = [
    ("a field", "  bool validate_only = 3;\n", "", '"validate_only" on message "CreateTrainingJobRequest" was deleted'),
    ("a number", "int64 after_event = 2;", "int64 after_event = 9;", 'Previously present field "2"'),
    ("a type", "int64 after_event = 2;", "string after_event = 2;", 'changed type from "int64" to "string"'),
    (
        "a call",
        "  rpc PauseTrainingJob(PauseTrainingJobRequest) returns (TrainingJob);\n",
        "",
        'RPC "PauseTrainingJob" on service "TrainingService" was deleted',
    ),
]


def breaking(protos: Path) -> subprocess.CompletedProcess[str]:
    """Runs buf, which needs a cache of its own."""
    buf = Path(sys.executable).with_name("buf")
    return subprocess.run(
        [buf, "breaking", "--against", "released.binpb"],
        cwd=protos,
        env={"PATH": "", "HOME": str(protos), "XDG_CACHE_HOME": str(protos.parent / "cache")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def protos(tmp_path: Path) -> Path:
    """A copy of the contract, to be broken."""
    copied: Path = shutil.copytree(PROTOS, tmp_path / "protos")
    return copied


def test_the_contract_keeps_what_the_last_release_promised() -> None:
    found = breaking(PROTOS)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize(
    ("before", "after", "said"), [row[1:] for row in TAKEN_AWAY], ids=[row[0] for row in TAKEN_AWAY]
)
def test_what_takes_something_away_is_refused(before: str, after: str, said: str, protos: Path) -> None:
    file = protos / TRAINING
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))
    found = breaking(protos)
    assert found.returncode != 0
    assert said in found.stdout


def test_what_is_added_is_welcome(protos: Path) -> None:
    file = protos / TRAINING
    last = "  int64 after_event = 2;\n"
    file.write_text(file.read_text().replace(last, f"{last}  // More.\n  int64 until_event = 900;\n"))
    found = breaking(protos)
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_reference_tells_of_every_call_and_field() -> None:
    for service in SERVICES:
        if service.full_name.startswith("grpc."):
            continue
        for method in service.methods:
            _, _, told = REFERENCE.partition(f"\n### {method.name}\n")
            assert f"[{method.input_type.name}](#{method.input_type.name.lower()})" in told.split("\n#", 1)[0]
            _, _, told = REFERENCE.partition(f"\n### {method.input_type.name}\n")
            for field in method.input_type.fields:
                assert f"* `{field.name}` = {field.number}, " in told.split("\n#", 1)[0]


def test_every_link_in_the_reference_leads_somewhere() -> None:
    headings = [heading.lower().replace(".", "") for heading in re.findall(r"^#+ (.+)$", REFERENCE, re.MULTILINE)]
    links = set(re.findall(r"\(#([^)]+)\)", REFERENCE))
    assert len(links) > 100
    assert links <= set(headings)
    assert not [link for link in links if headings.count(link) > 1]


def test_everything_in_the_reference_has_a_comment() -> None:
    assert re.findall(r"^ *\* `.*:$", REFERENCE, re.MULTILINE) == []
