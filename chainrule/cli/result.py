"""How a job ended: as one JSON object, as a summary for people, and as an exit code."""

from pathlib import Path
from typing import Any

import click

from chainrule.cli.program import FAILED
from chainrule.cli.text import as_dict, number, optional, percent, print_json, seconds, state_name
from chainrule.v1.training_job_pb2 import TrainingJob


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
        "parameters_sha256": result.parameters_sha256 or None,
        "model": result.model or None,
        "duration_seconds": result.duration_seconds if succeeded else None,
    }
    return line | ({"error": as_dict(job.error)} if job.state == TrainingJob.FAILED else {})


def summary(job: TrainingJob, model_file: Path | None = None, metrics: str = "") -> str:
    """A few lines about a job that succeeded."""
    result = job.result
    rows = [
        ("validation", _measures(optional(result, "validation_accuracy"), optional(result, "validation_loss"))),
        ("training", _measures(optional(result, "training_accuracy"), result.training_loss)),
        ("model", str(model_file) if model_file else result.model),
        ("metrics", metrics and f"{metrics} (while it ran)"),
        ("sha256", result.parameters_sha256),
        ("ended", job.state_reason),
    ]
    title = f"{job.display_name or job.name} {state_name(job)} in {seconds(result.duration_seconds)}"
    return "\n".join([title, *(f"  {name:<12}{value}" for name, value in rows if value)])


def failure(job: TrainingJob) -> str:
    """A line about a job that did not succeed."""
    if job.state == TrainingJob.FAILED:
        return f"{job.name} failed: {job.error.message or job.state_reason} ({job.error.reason or 'no reason given'})"
    return f"{job.name} was cancelled" if job.state == TrainingJob.CANCELLED else f"{job.name} is {state_name(job)}"


def _measures(accuracy: float | None, loss: float | None) -> str:
    parts = [] if accuracy is None else [f"accuracy {percent(accuracy)}"]
    return ", ".join(parts + ([] if loss is None else [f"loss {number(loss)}"]))
