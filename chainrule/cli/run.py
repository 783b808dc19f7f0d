"""One job from its file to its end: on a server that others use too, or with a coordinator of its own."""

from dataclasses import dataclass
from pathlib import Path

import click

from chainrule.cli.follow import follow, view_for
from chainrule.cli.sending import upload_bar
from chainrule.cli.text import print_json
from chainrule.client import Client
from chainrule.coordinator import embedded
from chainrule.errors import FailedPrecondition
from chainrule.jobdata import provide_dataset
from chainrule.jobfile import JobFile
from chainrule.resources import ENDED
from chainrule.v1.training_job_pb2 import TrainingJob

# An embedded coordinator is not started again when it dies, so there is little to wait for.
EMBEDDED_PATIENCE = 3.0  # seconds


@dataclass(frozen=True)
class Launch:
    """How an embedded coordinator is started. The commands take it from click's context object."""

    command: tuple[str, ...] | None = None
    """The service's command line without options; None for this installation's."""


@dataclass(frozen=True)
class Outcome:
    """A job that ended under an embedded coordinator, which is gone by now."""

    job: TrainingJob
    model_file: Path | None
    """Where its model is; None if it did not succeed."""
    metrics: str
    """Where its metrics were."""


def say(sentence: str) -> None:
    """Tells people what is going on, on stderr: stdout is for results."""
    click.echo(sentence, err=True)


def deleted(name: str, as_json: bool) -> None:
    """Tells that something is gone."""
    print_json({"deleted": name}) if as_json else say(f"{name} deleted")


def create(client: Client, file: JobFile) -> TrainingJob:
    """Creates the job of a file, its dataset first. Raises as `provide_dataset` and `Client.create_job` do."""
    with upload_bar() as progress:
        job = provide_dataset(client, file, say, progress)
    return client.create_job(job)


def run_embedded(
    file: JobFile, data_dir: Path, model_file: Path, launch: Launch, *, as_json: bool = False, alone: bool = False
) -> Outcome:
    """Runs a job with a coordinator that exists for it alone. Ctrl-C cancels the job.

    `alone` first cancels what an earlier run, killed before its end, has left unfinished in `data_dir`.

    Raises CoordinatorError, what `create` raises, and OSError if the model cannot be written to `model_file`.
    """
    # Its own size would do for most, but the job that it exists for has to fit in any case.
    workers = file.job.spec.workers or None
    with embedded(data_dir, launch.command, workers=workers) as coordinator, Client(coordinator.address) as client:
        if alone:
            _cancel_leftovers(client)
        job = create(client, file)
        try:
            job = follow(client, job, view_for(as_json, "Ctrl-C cancels the job"), EMBEDDED_PATIENCE)
        except KeyboardInterrupt:
            job = _cancel(client, job.name)
        if job.state != TrainingJob.SUCCEEDED:
            return Outcome(job, None, coordinator.metrics)
        return Outcome(job, client.download_model(job.result.model, model_file), coordinator.metrics)


def _cancel_leftovers(client: Client) -> None:
    for job in list(client.jobs()):
        if job.state not in ENDED:
            say(f"cancelling {job.name}, which an earlier run in this folder has left unfinished")
            _cancel(client, job.name)


def _cancel(client: Client, name: str) -> TrainingJob:
    try:
        return client.cancel_job(name)
    except FailedPrecondition:  # it has ended in this moment
        return client.get_job(name)
