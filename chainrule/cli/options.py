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


def labels_option(what: str) -> Callable[[Function], Function]:
    """Labels, as a mapping."""
    return click.option("--label", "labels", metavar="KEY=VALUE", multiple=True, callback=_labels, help=what)


def _labels(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    if wrong := [value for value in values if "=" not in value]:
        raise click.BadParameter(f"is {wrong[0]!r}; must be KEY=VALUE, like team=blue")
    return {key: value for key, _, value in (each.partition("=") for each in values)}


def json_option(what: str) -> Callable[[Function], Function]:
    """Output for programs."""
    return click.option("--json", "as_json", is_flag=True, help=f"Print {what} as JSON, one object a line.")
