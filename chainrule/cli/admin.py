"""``chainrule admin``: for whoever runs a coordinator."""

import hashlib
import os
import re
import secrets
import sys
from pathlib import Path

import click

from chainrule.cli.options import json_option
from chainrule.cli.text import print_json
from chainrule.coordinator import admin_command

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


data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="CHAINRULE_DATA_DIR",
    help="The coordinator's data directory. Also CHAINRULE_DATA_DIR. By default the one in the user's data folder.",
)


@admin.command()
@click.argument("to", type=click.Path(path_type=Path))
@data_dir_option
@json_option("what was done")
def backup(to: Path, data_dir: Path | None, as_json: bool) -> None:
    """Make a backup of a data directory as the new directory TO, also while a coordinator is at work there.

    It has jobs, datasets, models, aliases, checkpoints and the audit log; no unfinished uploads, and neither
    tokens nor certificates, which lie elsewhere. It is a copy: put it on another disk, or move it there.

    \b
      chainrule admin backup /backup/monday
      chainrule admin backup /backup/monday --data-dir /var/lib/chainrule
    """
    _become("backup", to, data_dir, as_json)


@admin.command()
@click.argument("backup", metavar="FROM", type=click.Path(path_type=Path, exists=True, file_okay=False))
@data_dir_option
@json_option("what was done")
def restore(backup: Path, data_dir: Path | None, as_json: bool) -> None:
    """Make a data directory of the backup FROM, each file checked as it is copied. There must be nothing in it.

    Jobs that hadn't ended go on from the checkpoints that the backup has, once a coordinator is started there.

    \b
      chainrule admin restore /backup/monday --data-dir /var/lib/chainrule
    """
    _become("restore", backup, data_dir, as_json)


@admin.command()
@click.argument("what", required=False, type=click.Path(path_type=Path, exists=True, file_okay=False))
@data_dir_option
@json_option("what was found")
def verify(what: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """See whether a backup or a data directory is sound: WHAT, or else that of --data-dir, also while it is in use.

    Every checksum is looked at, and every job replayed. Exits with 1 if anything is damaged or missing.

    \b
      chainrule admin verify
      chainrule admin verify /backup/monday
    """
    _become("verify", what, data_dir, as_json)


def _become(what: str, place: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Hands over to the service, which knows its files."""
    options = [what, *([str(place.absolute())] if place else []), *(["--json"] if as_json else [])]
    command = admin_command(*options, *(["--data-dir", str(data_dir)] if data_dir else []))
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606 - there is no shell that could be needed
