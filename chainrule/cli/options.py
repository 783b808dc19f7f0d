"""Options that several commands share."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from chainrule.channel import TLS

DEFAULT_SERVER = "127.0.0.1:50051"

Function = TypeVar("Function", bound=Callable[..., Any])


def check_address(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """Refuses an address without a port: gRPC would quietly take 443."""
    if value and ":" not in value.removeprefix(TLS):
        raise click.BadParameter(f"must be HOST:PORT, like {DEFAULT_SERVER}, with {TLS} before it for TLS")
    return value


def server_option(function: Function) -> Function:
    """Where the coordinator is."""
    return click.option(
        "--server",
        envvar="CHAINRULE_SERVER",
        metavar="HOST:PORT",
        default=DEFAULT_SERVER,
        show_default=True,
        callback=check_address,
        help="Where the coordinator answers; with grpcs:// before it, over TLS. Also CHAINRULE_SERVER.",
    )(function)


def json_option(what: str) -> Callable[[Function], Function]:
    """Output for programs."""
    return click.option("--json", "as_json", is_flag=True, help=f"Print {what} as JSON, one object a line.")
