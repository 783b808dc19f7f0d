"""``chainrule worker``: becomes a node that computes for a coordinator."""

import os
import sys

import click

from chainrule.coordinator import node_command


@click.command()
@click.argument("address", metavar="HOST:PORT")
@click.option(
    "--workers", type=click.IntRange(1), help="How many workers to offer, each with a core. Default: one a core."
)
@click.option(
    "--wait-seconds",
    type=click.FloatRange(0),
    default=120.0,
    show_default=True,
    help="How long to wait for the coordinator.",
)
def worker(address: str, workers: int | None, wait_seconds: float) -> None:
    """Offer this machine's cores to the coordinator whose Ray cluster is at HOST:PORT, until told to stop.

    The coordinator must have been started with --ray-listen, and both must run the same versions of Python and Ray.
    Machines may come and go while jobs run: what a job computes doesn't depend on them. Ray's ports let whoever reaches
    them run code: keep them on a network of your own, and set RAY_AUTH_MODE=token with the same token on every machine.

    \b
      chainrule serve --ray-listen HOST:6379   on one machine
      chainrule worker HOST:6379                on each of the others
    """
    command = node_command(address, "--wait-seconds", str(wait_seconds))
    command += ["--workers", str(workers)] if workers else []
    sys.stdout.flush()
    # In this process's place, so that signals and the exit code are the node's own.
    os.execv(command[0], command)  # noqa: S606 - there is no shell that could be needed
