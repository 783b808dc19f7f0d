"""``chainrule datasets``: brings data to a coordinator and removes it."""

from pathlib import Path

import click

from chainrule.cli.options import json_option, server_option
from chainrule.cli.run import say
from chainrule.cli.sending import upload_bar
from chainrule.cli.table import print_table
from chainrule.cli.text import as_dict, local_time, print_json, size
from chainrule.client import Client
from chainrule.resources import bare_id
from chainrule.v1.dataset_service_pb2 import Column, Dataset


@click.group()
def datasets() -> None:
    """Upload data, list it, remove it.

    A dataset is a file as numpy.savez writes it: named arrays, whose first axis is the row.

    \b
      python -c 'import numpy; numpy.savez("cars.npz", x=..., y=...)'
      chainrule datasets upload cars.npz --name cars
    """


@datasets.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--name", required=True, help="Lower-case letters, digits and hyphens, beginning with a letter.")
@server_option
@json_option("the dataset")
def upload(file: Path, name: str, server: str, as_json: bool) -> None:
    """Upload an .npz file as a dataset. It is checked before it exists, and never changes."""
    with Client(server) as client, upload_bar() as progress:
        dataset = client.upload_dataset(file, name, progress)
    if as_json:
        print_json(as_dict(dataset))
    else:
        click.echo(f"{dataset.name}: {dataset.rows:,} rows of {_columns(dataset)}")


@datasets.command("list")
@server_option
@json_option("the datasets")
def list_datasets(server: str, as_json: bool) -> None:
    """List datasets by name."""
    with Client(server) as client:
        found = list(client.datasets())
    if as_json:
        for dataset in found:
            print_json(as_dict(dataset))
    else:
        print_table(
            ["DATASET", "ROWS>", "COLUMNS", "SIZE>", "UPLOADED"],
            map(_row, found),
            "there are no datasets yet; chainrule datasets upload brings one",
        )


@datasets.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@server_option
def delete(names: tuple[str, ...], server: str) -> None:
    """Remove datasets that no unfinished job uses."""
    with Client(server) as client:
        for name in names:
            client.delete_dataset(name)
            say(f"{name} deleted")


def _row(dataset: Dataset) -> list[str]:
    return [
        bare_id(dataset.name),
        f"{dataset.rows:,}",
        _columns(dataset),
        size(dataset.size_bytes),
        local_time(dataset.create_time),
    ]


def _columns(dataset: Dataset) -> str:
    return ", ".join(map(_column, dataset.columns))


def _column(column: Column) -> str:
    """``x float32[64]``."""
    shape = ",".join(map(str, column.row_shape))
    return f"{column.name} {column.dtype}" + (f"[{shape}]" if shape else "")
