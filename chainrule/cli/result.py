"""How a job ended: as one JSON object, as a summary for people, and as an exit code."""

from pathlib import Path
from typing import Any

import click

from chainrule.cli.health import diagnosis_lines
from chainrule.cli.program import FAILED
from chainrule.cli.text import as_dict, beyond_accuracy, number, optional, percent, print_json, seconds, state_name
from chainrule.v1.training_job_pb2 import TrainingJob, TrainingResult

MOST_CLASSES_SHOWN = 10


def report(job: TrainingJob, as_json: bool, model_file: Path | None = None, metrics: str = "") -> int:
    """Prints how an ended job ended and returns the exit code: 0 if it succeeded, else 1."""
    if as_json:
        print_json(result_line(job))
    elif job.state == TrainingJob.SUCCEEDED:
        click.echo(summary(job, model_file, metrics))
    else:
        click.echo(f"chainrule: {failure(job)}", err=True)
    return 0 if job.state == TrainingJob.SUCCEEDED else FAILED


def result_line(job: TrainingJob) -> dict[str, Any]:
    """The last line of ``--json``. What the job does not have, as an accuracy without classes, is null."""
    succeeded, result = job.state == TrainingJob.SUCCEEDED, job.result
    line = {
        "job": job.name,
        "state": state_name(job),
        "training_loss": result.training_loss if succeeded else None,
        "training_accuracy": optional(result, "training_accuracy"),
        "validation_loss": optional(result, "validation_loss"),
        "validation_accuracy": optional(result, "validation_accuracy"),
        "validation_scores": dict(result.validation_scores),
        "confusion": [list(row.counts) for row in result.confusion],
        "parameters_sha256": result.parameters_sha256 or None,
        "model": result.model or None,
        "duration_seconds": result.duration_seconds if succeeded else None,
    }
    return line | ({"error": as_dict(job.error)} if job.state == TrainingJob.FAILED else {})


def summary(job: TrainingJob, model_file: Path | None = None, metrics: str = "") -> str:
    """A few lines about a job that succeeded."""
    result = job.result
    validation = _measures(optional(result, "validation_accuracy"), optional(result, "validation_loss"))
    rows = [
        ("validation", validation),
        ("", ", ".join(f"{name} {value}" for name, value in beyond_accuracy(result.validation_scores))),
        *(("confusion" if index == 0 else "", line) for index, line in enumerate(_confusion(result))),
        ("training", _measures(optional(result, "training_accuracy"), result.training_loss)),
        ("model", str(model_file) if model_file else result.model),
        ("metrics", metrics and f"{metrics} (while it ran)"),
        ("sha256", result.parameters_sha256),
        ("ended", job.state_reason),
    ]
    title = f"{job.display_name or job.name} {state_name(job)} in {seconds(result.duration_seconds)}"
    return "\n".join([title, *(f"  {name:<12}{value}" for name, value in rows if value), *wrong(job)])


def failure(job: TrainingJob) -> str:
    """A line about a job that did not succeed, and what was wrong with its training."""
    line = f"{job.name} was cancelled" if job.state == TrainingJob.CANCELLED else f"{job.name} is {state_name(job)}"
    if job.state == TrainingJob.FAILED:
        error = job.error
        line = f"{job.name} failed: {error.message or job.state_reason} ({error.reason or 'no reason given'})"
    return "\n".join([line, *wrong(job)])


def wrong(job: TrainingJob) -> list[str]:
    """Lines about what is wrong with a job's training, if anything is."""
    lines = diagnosis_lines(job.diagnoses, 80 - 14)
    return [f"  {'diagnoses' if index == 0 else '':<12}{line}" for index, line in enumerate(lines)]


def _confusion(result: TrainingResult) -> list[str]:
    """A table of a few lines for people, if it has so few classes that it can be read."""
    classes = len(result.confusion)
    if not 0 < classes <= MOST_CLASSES_SHOWN:
        return []
    cells = [["", *map(str, range(classes))]]
    cells += [
        [str(index), *(f"{count:.10g}" if count else "." for count in row.counts)]
        for index, row in enumerate(result.confusion)
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return ["a row for each true class, a column for each it was taken for", *lines]


def _measures(accuracy: float | None, loss: float | None) -> str:
    parts = [] if accuracy is None else [f"accuracy {percent(accuracy)}"]
    return ", ".join(parts + ([] if loss is None else [f"loss {number(loss)}"]))
