"""``chainrule models``: finds trained networks and fetches them."""

from pathlib import Path

import click

from chainrule.cli.options import json_option, server_option
from chainrule.cli.table import print_table
from chainrule.cli.text import as_dict, local_time, number, optional, percent, print_json, size
from chainrule.client import Client
from chainrule.resources import bare_id
from chainrule.v1.model_service_pb2 import Model


@click.group()
def models() -> None:
    """List trained networks and download them.

    \b
      chainrule models list
      chainrule models download NAME -o digits.safetensors
    """


@models.command("list")
@server_option
@json_option("the models")
def list_models(server: str, as_json: bool) -> None:
    """List models, the newest first."""
    with Client(server) as client:
        found = list(client.models())
    if as_json:
        for model in found:
            print_json(as_dict(model))
    else:
        print_table(
            ["MODEL", "PARAMETERS>", "SIZE>", "LOSS>", "ACCURACY>", "MADE"],
            map(_row, found),
            "there are no models yet; a job that succeeds makes one",
        )


@models.command()
@click.argument("name")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path(),
    help="The file to write, or the folder to write NAME.safetensors to. By default the current folder.",
)
@server_option
@json_option("the model and the file's path")
def download(name: str, output: Path, server: str, as_json: bool) -> None:
    """Download a model as a safetensors file. Its checksum is verified before the file appears."""
    with Client(server) as client:
        path = client.download_model(name, output)
        model = client.get_model(name)
    if as_json:
        print_json(as_dict(model) | {"path": str(path)})
    else:
        click.echo(str(path))


def _row(model: Model) -> list[str]:
    return [
        bare_id(model.name),
        f"{model.parameter_count:,}",
        size(model.size_bytes),
        number(optional(model, "validation_loss")),
        percent(optional(model, "validation_accuracy")),
        local_time(model.create_time),
    ]
