"""``chainrule train``: runs the job that a file describes."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import click

from chainrule.cli.follow import follow, view_for
from chainrule.cli.options import check_address, json_option, labels_option
from chainrule.cli.places import run_dir
from chainrule.cli.program import INTERRUPTED
from chainrule.cli.result import report
from chainrule.cli.run import Launch, create, run_embedded, say
from chainrule.cli.text import print_json, state_name
from chainrule.client import Client
from chainrule.errors import Unavailable
from chainrule.jobfile import JobFile, read_job_file
from chainrule.resources import bare_id
from chainrule.v1.training_job_pb2 import TrainingJob


@click.command()
@click.argument("job_file", metavar="JOB.yaml", type=click.Path(path_type=Path))
@click.option(
    "--server",
    envvar="CHAINRULE_SERVER",
    metavar="HOST:PORT",
    callback=check_address,
    help="Train there. Also CHAINRULE_SERVER. Without it, a coordinator is started for this run alone.",
)
@click.option(
    "--follow/--detach",
    "following",
    default=True,
    help="Follow the job to its end (the default), or print its name and return. Detaching needs --server.",
)
@json_option('every event as {"event": ...} and then the result')
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where this run's coordinator keeps its data. By default a new folder in ~/.local/share/chainrule/runs.",
)
@labels_option("Words to find the job by, such as team=blue. May be given several times.")
@click.option("--workers", type=click.IntRange(min=1), help="Use so many workers instead of what the file says.")
@click.pass_context
def train(
    context: click.Context,
    job_file: Path,
    server: str | None,
    following: bool,
    as_json: bool,
    data_dir: Path | None,
    labels: dict[str, str],
    workers: int | None,
) -> None:
    """Train the network that a job file describes.

    The file is YAML or JSON, with the fields of TrainingJobSpec; examples/digits.yaml explains them. Its data.dataset
    is the name of a dataset on the server, the path of an .npz or .csv file, which is uploaded first, or one of the
    samples digits, breast-cancer, wine and diabetes.

    \b
    Train here and now; the model file's path is in the summary:
      chainrule train examples/digits.yaml
    \b
    On a coordinator that is running; Ctrl-C detaches and the job goes on:
      chainrule train examples/digits.yaml --server 127.0.0.1:50051
    \b
    In a script:
      chainrule train job.yaml --json | tail -n 1 | jq .validation_accuracy
    """
    if not server and not following:
        raise click.UsageError("--detach needs --server: without one the coordinator ends with this command")
    if server and data_dir:
        raise click.UsageError("--data-dir is for a run without a server")
    file = read_job_file(job_file)
    file = _changed(file, labels, workers)
    if not server:
        launch = context.find_object(Launch) or Launch()
        context.exit(_train_embedded(file, data_dir or run_dir(job_file.stem, datetime.now()), as_json, launch))
    context.exit(_train_on(server, file, following, as_json))


def _changed(file: JobFile, labels: dict[str, str], workers: int | None) -> JobFile:
    job = TrainingJob()
    job.CopyFrom(file.job)
    job.labels.update(labels)
    if workers is not None:
        job.spec.workers = workers
    return replace(file, job=job)


def _train_embedded(file: JobFile, data_dir: Path, as_json: bool, launch: Launch) -> int:
    outcome = run_embedded(file, data_dir, data_dir / f"{file.path.stem}.safetensors", launch, as_json=as_json)
    return report(outcome.job, as_json, outcome.model_file, outcome.metrics)


def _train_on(server: str, file: JobFile, following: bool, as_json: bool) -> int:
    with Client(server) as client:
        try:
            job = create(client, file)
        except Unavailable as error:
            error.args = (f"{error}, or leave --server out to train with a coordinator of this run's own",)
            raise
        if not following:
            print_json({"job": job.name, "state": state_name(job)}) if as_json else click.echo(job.name)
            return 0
        try:
            job = follow(client, job, view_for(as_json, "Ctrl-C detaches; the job goes on"))
        except KeyboardInterrupt:
            detached(job.name, server)
            return INTERRUPTED
    return report(job, as_json)


def detached(name: str, server: str) -> None:
    """Tells how to get back to a job that goes on alone."""
    say(f"{name} goes on.")
    say(f"  watch it:   chainrule jobs watch {bare_id(name)} --server {server}")
    say(f"  cancel it:  chainrule jobs cancel {bare_id(name)} --server {server}")
