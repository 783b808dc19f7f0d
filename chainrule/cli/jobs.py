"""``chainrule jobs``: looks at the jobs of a coordinator, pauses them and stops them."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import click

from chainrule.cli.follow import events_so_far, follow, view_for
from chainrule.cli.health import health_lines
from chainrule.cli.options import json_option, labels_option, server_option
from chainrule.cli.plain import describe
from chainrule.cli.program import INTERRUPTED
from chainrule.cli.report import collect, render
from chainrule.cli.result import failure, report, summary, wrong
from chainrule.cli.run import deleted, say
from chainrule.cli.table import print_table
from chainrule.cli.text import (
    as_dict,
    beyond_accuracy,
    labels,
    local_time,
    number,
    optional,
    percent,
    print_json,
    size,
    state_name,
)
from chainrule.cli.train import detached
from chainrule.client import Client
from chainrule.errors import Aborted
from chainrule.jobfile import job_file_text
from chainrule.resources import ENDED, bare_id
from chainrule.v1.training_job_pb2 import TrainingJob

MOST_ATTEMPTS = 5
"""How often to try to change a job that others change at the same time."""

names_argument = click.argument("names", metavar="NAME...", nargs=-1, required=True)


@click.group()
def jobs() -> None:
    """Look at jobs, follow them, change them, pause or stop them.

    \b
      chainrule jobs list
      chainrule jobs watch NAME
      chainrule jobs report NAME -o report.html
      chainrule jobs update NAME --learning-rate 0.0005
      chainrule jobs pause NAME
      chainrule jobs cancel NAME
    """


@jobs.command("list")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Show so many at most.")
@click.option("--filter", default="", help='Which ones: "state = RUNNING AND labels.team = blue"; also !=.')
@labels_option("Only jobs with this label. May be given several times.")
@click.option(
    "--order", default="", help="create_time or priority, with desc for the largest first, and commas between."
)
@server_option
@json_option("the jobs")
def list_jobs(limit: int, filter: str, labels: dict[str, str], order: str, server: str, as_json: bool) -> None:  # noqa: A002
    """List jobs, the newest first."""
    wanted = " AND ".join(
        [*([filter] if filter else []), *(f"labels.{key} = {_quoted(labels[key])}" for key in labels)]
    )
    with Client(server) as client:
        found = list(islice(client.jobs(page_size=min(limit, 1000), filter=wanted, order_by=order), limit))
    if as_json:
        for job in found:
            print_json(as_dict(job))
    else:
        print_table(
            ["JOB", "STATE", "EPOCH>", "LOSS>", "ACCURACY>", "CREATED"],
            map(_row, found),
            "there is no such job" if wanted else "there are no jobs yet; chainrule train creates one",
        )


@jobs.command()
@click.argument("name")
@server_option
@json_option("the job")
def show(name: str, server: str, as_json: bool) -> None:
    """Show a job: where it stands, what is wrong, how its layers fare; and a job file that would run it again."""
    with Client(server) as client:
        job = client.get_job(name)
        if as_json:
            print_json(as_dict(job))
            return
        look = None
        for event in events_so_far(client, name):
            look = event.health_sampled if event.HasField("health_sampled") else look
    click.echo(_standing(job))
    if look:
        click.echo(f"  layers      as of step {look.step:,}; the whole gradient {number(look.gradient_norm)}")
        click.echo("\n".join(f"    {line}" for line in health_lines(look)))
    click.echo()
    click.echo(job_file_text(job), nl=False)


@jobs.command()
@click.argument("name")
@server_option
@json_option('every event as {"event": ...} and then the result')
@click.pass_context
def watch(context: click.Context, name: str, server: str, as_json: bool) -> None:
    """Follow a job to its end, from its first event on. Ctrl-C stops watching; the job goes on."""
    with Client(server) as client:
        job = client.get_job(name)
        try:
            job = follow(client, job, view_for(as_json, "Ctrl-C detaches; the job goes on"))
        except KeyboardInterrupt:
            detached(job.name, server)
            context.exit(INTERRUPTED)
    context.exit(report(job, as_json))


@jobs.command()
@click.argument("name")
@server_option
@json_option("every event")
def events(name: str, server: str, as_json: bool) -> None:
    """Tell what has happened to a job up to now."""
    with Client(server) as client:
        job = client.get_job(name)
        for event in events_so_far(client, name):
            if as_json:
                print_json(as_dict(event))
            elif line := describe(job, event):
                click.echo(f"{local_time(event.time)}  {line}")


@jobs.command("report")
@click.argument("name")
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The file to write; one that is there is replaced.",
)
@server_option
@json_option("the job and the file's path")
def write_report(name: str, output: Path, server: str, as_json: bool) -> None:
    """Write a page about a job, as far as it got: a single file of HTML that needs no network.

    Its curves, how its layers fared, what was wrong, what happened, and all it takes to train the same bits again.
    """
    with Client(server) as client:
        history = collect(client, name)
        output.write_text(render(history), encoding="utf-8")
    print_json({"job": history.job.name, "path": str(output)}) if as_json else say(f"{output} is written")


@jobs.command()
@click.argument("name")
@click.option("--name", "display_name", help="What people call it.")
@labels_option("A label to set, such as team=blue. May be given several times.")
@click.option("--no-label", "gone", metavar="KEY", multiple=True, help="A label to take away.")
@click.option("--priority", type=int, help="-100 to 100: those with a higher one come first in the queue.")
@click.option("--workers", type=int, help="How many it wants.")
@click.option("--min-workers", type=int, help="With fewer it doesn't start.")
@click.option("--max-workers", type=int, help="With more it doesn't train.")
@click.option("--learning-rate", type=float, help="Before its schedule; from one of the next steps on.")
@server_option
@json_option("the job")
def update(name: str, labels: dict[str, str], gone: tuple[str, ...], server: str, as_json: bool, **given: Any) -> None:
    """Change a job's settings, whatever it is doing. What isn't given stays as it is.

    \b
      chainrule jobs update NAME --learning-rate 0.0005
      chainrule jobs update NAME --priority 50 --label team=blue
    """
    if not labels and not gone and all(value is None for value in given.values()):
        raise click.UsageError("nothing to change; --help lists what can be")
    with Client(server) as client:
        for attempt in range(MOST_ATTEMPTS):
            etag, wanted = "", None
            if labels or gone:  # all are sent, so that nobody else may have changed them since they were looked at
                job = client.get_job(name)
                etag = job.etag
                wanted = {key: value for key, value in {**job.labels, **labels}.items() if key not in gone}
            try:
                job = client.update_job(name, labels=wanted, etag=etag, **given)
                break
            except Aborted:
                if attempt + 1 == MOST_ATTEMPTS:
                    raise
    print_json(as_dict(job)) if as_json else click.echo(_standing(job))


@jobs.command()
@click.argument("name")
@server_option
@json_option("the checkpoints")
def checkpoints(name: str, server: str, as_json: bool) -> None:
    """List the checkpoints that a job has now, the newest first. chainrule models create makes a model of one."""
    with Client(server) as client:
        found = list(client.checkpoints(name))
    if as_json:
        for checkpoint in found:
            print_json(as_dict(checkpoint))
    else:
        print_table(
            ["STEP>", "EPOCH>", "BEST", "SIZE>", "WRITTEN"],
            (
                [
                    f"{each.step}",
                    f"{each.epoch}",
                    "best" if each.best else "",
                    size(each.size_bytes),
                    local_time(each.create_time),
                ]
                for each in found
            ),
            "there are no checkpoints yet; the first is written after some seconds of training",
        )


@jobs.command()
@names_argument
@server_option
@json_option("the jobs")
def pause(names: tuple[str, ...], server: str, as_json: bool) -> None:
    """Have jobs write a checkpoint and let go of their workers, until they are resumed."""
    with Client(server) as client:
        _change(names, client.pause_job, as_json)


@jobs.command()
@names_argument
@server_option
@json_option("the jobs")
def resume(names: tuple[str, ...], server: str, as_json: bool) -> None:
    """Put paused jobs back in the queue. They go on as if they had never stopped."""
    with Client(server) as client:
        _change(names, client.resume_job, as_json)


@jobs.command()
@names_argument
@server_option
@json_option("the jobs")
def cancel(names: tuple[str, ...], server: str, as_json: bool) -> None:
    """Stop jobs for good. Their last checkpoints are kept."""
    with Client(server) as client:
        _change(names, client.cancel_job, as_json)


@jobs.command()
@names_argument
@server_option
@json_option('{"deleted": NAME} for each')
def delete(names: tuple[str, ...], server: str, as_json: bool) -> None:
    """Remove ended jobs, their events and checkpoints. Their models stay."""
    with Client(server) as client:
        for name in names:
            client.delete_job(name)
            deleted(name, as_json)


def _change(names: tuple[str, ...], change: Callable[[str], TrainingJob], as_json: bool) -> None:
    for name in names:
        job = change(name)
        print_json(as_dict(job)) if as_json else click.echo(f"{job.name} {state_name(job)}")


def _quoted(value: str) -> str:
    """A value as a filter has it."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _row(job: TrainingJob) -> list[str]:
    progress = job.progress
    return [
        bare_id(job.name),
        state_name(job),
        f"{progress.epoch}/{job.spec.epochs}",
        number(progress.training_loss if progress.step else None),
        percent(optional(progress, "validation_accuracy")),
        local_time(job.create_time),
    ]


def _standing(job: TrainingJob) -> str:
    if job.state == TrainingJob.SUCCEEDED:
        return summary(job)
    if job.state in ENDED:
        return failure(job)
    progress = job.progress
    reason = f": {job.state_reason}" if job.state_reason else ""
    spec = job.spec
    rate = f", which {job.learning_rate:g} takes the place of" if job.HasField("learning_rate") else ""
    return "\n".join(
        [
            f"{job.display_name or job.name} {state_name(job)}{reason}",
            *([f"  labels      {labels(job)}"] if job.labels else []),
            f"  asks for    {spec.min_workers} to {spec.max_workers} workers, {spec.workers} at best to begin with; "
            f"priority {spec.priority}; learning rate {spec.optimizer.learning_rate:g}{rate}",
            f"  step        {progress.step:,} of {progress.total_steps:,}, epoch {progress.epoch} of {job.spec.epochs}",
            f"  loss        {number(progress.training_loss if progress.step else None)}",
            f"  validation  loss {number(optional(progress, 'validation_loss'))},"
            f" accuracy {percent(optional(progress, 'validation_accuracy'))}"
            + "".join(f", {name} {value}" for name, value in beyond_accuracy(progress.validation_scores)),
            f"  workers     {progress.workers}, {progress.shared_memory_workers} of them through shared memory;"
            f" lost so far {progress.worker_failures}",
            *wrong(job),
        ]
    )
