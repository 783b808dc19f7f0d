"""Tables as users have them, by the command line: csv files with classes by name, and with a number to foretell."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_wine

from tests.system.coordinator import Coordinator
from tests.system.processes import run
from tests.system.test_command_line import command, parsed

pytestmark = pytest.mark.system

JOB = """
data:
  dataset: {name}.csv
  target_column: answer
  features: [{{columns: ["*"], standardise: {{}}}}]
  target: {target}
network: {{layers: [{{dense: {{units: 16}}}}, {{relu: {{}}}}, {{dense: {{units: {outputs}}}}}]}}
loss: {loss}
optimizer: {{learning_rate: 0.01, adam: {{}}}}
epochs: 30
batch_size: 16
"""


def trained(name: str, rows: Any, answers: list[Any], coordinator: Coordinator, folder: Path, **job: Any) -> Any:
    with (folder / f"{name}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(f"feature {number}" for number in range(rows.shape[1])), "answer"])
        writer.writerows([*row, answer] for row, answer in zip(rows.tolist(), answers, strict=True))
    (folder / "job.yaml").write_text(JOB.format(name=name, **job))
    code, out, err = run(command("train", str(folder / "job.yaml"), "--json", "--server", coordinator.grpc), folder)
    assert code == 0, err
    return parsed(out)[-1]


def test_wines_by_name(coordinator: Coordinator, tmp_path: Path) -> None:
    wine = load_wine()
    names = wine.target_names[wine.target].tolist()
    job = {"target": "{classes: {}}", "outputs": 3, "loss": "{softmax_cross_entropy: {}}"}
    result = trained("wine", wine.data, names, coordinator, tmp_path, **job)
    assert result["validation_accuracy"] >= 0.9


def test_a_number_in_its_own_units(coordinator: Coordinator, tmp_path: Path) -> None:
    """The loss is of standardised numbers, so that 1 is what the mean alone would give."""
    diabetes = load_diabetes()
    job = {"target": "{standardise: {}}", "outputs": 1, "loss": "{mean_squared_error: {}}"}
    answers = diabetes.target.tolist()
    assert np.std(answers) > 50
    result = trained("diabetes", diabetes.data, answers, coordinator, tmp_path, **job)
    assert 0.2 < result["validation_loss"] < 0.8
