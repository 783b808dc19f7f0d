"""``chainrule health``: is a coordinator up and ready? For the health checks of containers and scripts."""

import click

from chainrule.cli.options import server_option
from chainrule.health import check_health


@click.command()
@click.option(
    "--timeout", type=click.FloatRange(0, min_open=True), default=5.0, show_default=True, help="Seconds to wait."
)
@server_option
def health(timeout: float, server: str) -> None:
    """Ask whether the coordinator is ready: exit code 0 if it is, else 3.

    \b
      chainrule health --server 127.0.0.1:50051
    """
    check_health(server, timeout)
    click.echo(f"{server} is ready")
