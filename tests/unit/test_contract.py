"""The contract keeps what the last release promised: what `make check` runs finds whatever takes something away."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROTOS = Path(__file__).resolve().parents[2] / "protos"
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
