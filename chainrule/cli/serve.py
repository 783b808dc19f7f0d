"""``chainrule serve``: becomes the coordinator."""

import os
import sys
from pathlib import Path

import click

from chainrule.cli.options import DEFAULT_SERVER
from chainrule.coordinator import service_command


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--listen", metavar="HOST:PORT", default=DEFAULT_SERVER, show_default=True, help="Where to answer gRPC.")
@click.option(
    "--metrics-listen",
    metavar="HOST:PORT",
    default="127.0.0.1:9464",
    show_default=True,
    help="Where Prometheus can scrape /metrics.",
)
@click.option(
    "--web",
    metavar="HOST:PORT",
    is_flag=False,
    flag_value="127.0.0.1:8080",
    help="Serve a web page with the jobs, live. Without an address: at 127.0.0.1:8080.",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where jobs, datasets and models are kept. By default in the user's data folder.",
)
@click.option(
    "--ray-address",
    envvar="RAY_ADDRESS",
    metavar="ADDRESS",
    help="A Ray cluster to take workers from. Also RAY_ADDRESS. Without it, Ray is started on this machine.",
)
@click.argument("more", metavar="[OPTIONS OF THE SERVICE]...", nargs=-1, type=click.UNPROCESSED)
def serve(
    listen: str,
    metrics_listen: str,
    web: str | None,
    data_dir: Path | None,
    ray_address: str | None,
    more: tuple[str, ...],
) -> None:
    """Run the coordinator until it is told to stop (Ctrl-C or SIGTERM).

    Jobs that were under way when it stopped go on, when it is started again with the same data, from their last
    checkpoint. Other options are the service's own: see python -m service --help.

    \b
      chainrule serve
      chainrule serve --web
      chainrule serve --listen 0.0.0.0:50051 --data-dir /var/lib/chainrule
      chainrule serve --local-workers 8
    """
    command = service_command(*serve_options(listen, metrics_listen, data_dir, ray_address, web), *more)
    sys.stdout.flush()
    # In this process's place, so that signals and the exit code are the coordinator's own.
    os.execv(command[0], command)  # noqa: S606 - there is no shell that could be needed


def serve_options(
    listen: str, metrics_listen: str, data_dir: Path | None, ray_address: str | None, web: str | None = None
) -> list[str]:
    """The service's options; what is not given is left to its own defaults."""
    options = ["--listen", listen, "--metrics-listen", metrics_listen]
    options += ["--web-listen", web] if web else []
    options += ["--data-dir", str(data_dir)] if data_dir else []
    return options + (["--ray-address", ray_address] if ray_address else [])
