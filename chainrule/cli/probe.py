"""``chainrule health``: is a coordinator up and ready? For the health checks of containers and scripts."""

import click

from chainrule.cli.options import json_option, server_option
from chainrule.cli.text import print_json
from chainrule.health import check_health


@click.command()
@click.option(
    "--timeout", type=click.FloatRange(0, min_open=True), default=5.0, show_default=True, help="Seconds to wait."
)
@server_option
@json_option("that it is")
def health(timeout: float, server: str, as_json: bool) -> None:
    """Ask whether the coordinator is ready: exit code 0 if it is, else 3.

    \b
      chainrule health --server 127.0.0.1:50051
    """
    check_health(server, timeout)
    print_json({"server": server, "ready": True}) if as_json else click.echo(f"{server} is ready")
