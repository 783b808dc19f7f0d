"""``chainrule admin``: for whoever runs a coordinator."""

import hashlib
import re
import secrets

import click

from chainrule.cli.options import json_option
from chainrule.cli.text import print_json

PREFIX = "chainrule_"
"""Tells people, and programs that look for lost secrets, what it is."""


@click.group()
def admin() -> None:
    """Look after a coordinator."""


def check_name(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """Refuses what the tokens file has no place for."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}", value):
        raise click.BadParameter("must be 1 to 100 letters, digits and . _ @ -, the first no sign")
    return value


@admin.command()
@click.argument("name", callback=check_name)
@click.option(
    "--scope",
    type=click.Choice(["read", "train", "admin"]),
    default="train",
    show_default=True,
    help="What it allows: read looks and predicts; train also makes and ends what is its own; admin does everything.",
)
@json_option("both")
def token(name: str, scope: str, as_json: bool) -> None:
    """Make a token for a person or a program called NAME.

    It is shown once and kept nowhere: the line for the coordinator's tokens file (--auth-tokens) has its hash alone.

    \b
      chainrule admin token alice
      chainrule admin token dashboard --scope read --json
    """
    secret = PREFIX + secrets.token_urlsafe(32)
    line = f"{name} {scope} {hashlib.sha256(secret.encode()).hexdigest()}"
    if as_json:
        print_json({"token": secret, "line": line})
        return
    click.echo(
        f"For {name}, shown this once, to be put into CHAINRULE_TOKEN or a file that CHAINRULE_TOKEN_FILE names:"
    )
    click.echo(f"\n  {secret}\n")
    click.echo("For the coordinator's tokens file (--auth-tokens):")
    click.echo(f"\n  {line}\n")
