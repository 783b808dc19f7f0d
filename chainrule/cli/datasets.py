"""``chainrule datasets``: brings data to a coordinator, shows what is known of it, and removes it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import click

from chainrule.cli.options import Function, json_option, server_option
from chainrule.cli.run import deleted
from chainrule.cli.sending import upload_bar
from chainrule.cli.table import print_table
from chainrule.cli.text import as_dict, local_time, number, print_json, size
from chainrule.client import Client
from chainrule.packing import Source
from chainrule.resources import bare_id
from chainrule.v1.dataset_service_pb2 import Column, Dataset

FORMATS = ["npz", "csv", "idx", "parquet", "arrow"]


@click.group()
def datasets() -> None:
    """Upload or import data, list it, look at it, remove it.

    A dataset is made once and never changes. It has named columns; the first axis of each is the row.

    \b
      chainrule datasets upload cars cars.npz
      chainrule datasets upload wine wine.csv --group y=kind --group 'x=*'
      chainrule datasets upload digits x=images-idx3-ubyte.gz y=labels-idx1-ubyte.gz
      chainrule datasets import cars file:///srv/data/cars.parquet
      chainrule datasets show wine
    """


def _layout_options(function: Function) -> Function:
    """How a file is to be read."""
    decorators: list[Callable[[Function], Function]] = [
        click.option(
            "--group",
            "groups",
            metavar="NAME=COLUMN,...",
            multiple=True,
            callback=_parse_groups,
            help="Gather columns of a table under a new name; * is every numeric column that no group names. "
            "May be given several times.",
        ),
        click.option(
            "--format",
            "layout",
            type=click.Choice(FORMATS),
            help="How the file is laid out. By default its first bytes tell; what they don't tell is csv.",
        ),
    ]
    for decorator in decorators:
        function = decorator(function)
    return function


def _parse_groups(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for value in values:
        name, found, columns = value.partition("=")
        if not found or not name or not columns:
            raise click.BadParameter(f"{value!r} must be NAME=COLUMN,COLUMN,... or NAME=*")
        if name in groups:
            raise click.BadParameter(f"{name!r} is given twice; name all its columns at once: {name}=COLUMN,COLUMN")
        groups[name] = columns.split(",")
    return groups


@datasets.command()
@click.argument("name")
@click.argument("files", metavar="FILE | COLUMN=FILE...", nargs=-1, required=True)
@_layout_options
@server_option
@json_option("the dataset")
def upload(
    name: str, files: tuple[str, ...], groups: dict[str, list[str]], layout: str | None, server: str, as_json: bool
) -> None:
    """Upload a file, or a file for each column, as the dataset NAME.

    A FILE is .npz, csv with a header row, IDX, Parquet or Arrow, each also in gzip. With COLUMN=FILE, each file is one
    column, as .npy or IDX: so MNIST's images and labels become one dataset. NAME has lower-case letters, digits and
    hyphens, and begins with a letter.

    The data is checked before the dataset exists. An upload that breaks off goes on where it stood: by itself, or when
    the same command is given again within a day.

    \b
      chainrule datasets upload cars cars.npz
      chainrule datasets upload wine wine.csv --group y=kind --group 'x=*'
      chainrule datasets upload digits x=images-idx3-ubyte.gz y=labels-idx1-ubyte.gz
    """
    source = _source(files)
    with Client(server) as client, upload_bar() as progress:
        dataset = client.upload_dataset(source, name, progress, layout=_value(layout), groups=groups)
    _tell(dataset, as_json)


@datasets.command("import")
@click.argument("name")
@click.argument("uri")
@_layout_options
@server_option
@json_option("the dataset")
def import_dataset(
    name: str, uri: str, groups: dict[str, list[str]], layout: str | None, server: str, as_json: bool
) -> None:
    """Have the coordinator make the dataset NAME of a file that it can reach itself.

    URI is a file below a place that the coordinator was started with: file:///srv/data/cars.csv after
    "chainrule serve --import-root /srv/data", or the address of an object store such as s3://bucket/cars.csv.
    """
    with Client(server) as client:
        dataset = client.import_dataset(uri, name, layout=_value(layout), groups=groups)
    _tell(dataset, as_json)


@datasets.command()
@click.argument("name")
@server_option
@json_option("the dataset")
def show(name: str, server: str, as_json: bool) -> None:
    """Show a dataset's columns with their statistics.

    Mean and standard deviation (STD) are over all finite elements of a column; NAN counts the others, of which a column
    to learn from may have none. DISTINCT counts different values, up to 1,000.
    """
    with Client(server) as client:
        dataset = client.get_dataset(name)
    if as_json:
        print_json(as_dict(dataset))
        return
    click.echo(f"{dataset.name}: {dataset.rows:,} rows, {size(dataset.stored_bytes)}")
    click.echo(f"  file    {Dataset.Format.Name(dataset.format).lower()}, {size(dataset.size_bytes)}")
    click.echo(f"  sha256  {dataset.sha256}")
    click.echo(f"  made    {local_time(dataset.create_time)}")
    for group in dataset.groups:
        click.echo(f"  group   {group.name} = {', '.join(group.columns)}")
    print_table(
        ["COLUMN", "TYPE", "MIN>", "MAX>", "MEAN>", "STD>", "DISTINCT>", "NAN>"],
        map(_statistics, dataset.columns),
        "it has no columns",
    )


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
            ["DATASET", "ROWS>", "COLUMNS", "SIZE>", "MADE"],
            map(_row, found),
            "there are no datasets yet; chainrule datasets upload brings one",
        )


@datasets.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@server_option
@json_option('{"deleted": NAME} for each')
def delete(names: tuple[str, ...], server: str, as_json: bool) -> None:
    """Remove datasets that no unfinished job uses."""
    with Client(server) as client:
        for name in names:
            client.delete_dataset(name)
            deleted(name, as_json)


def _source(files: Sequence[str]) -> Source:
    """A single file, or the file of every column."""
    if len(files) == 1 and ("=" not in files[0] or Path(files[0]).exists()):
        return _file(files[0])
    columns: dict[str, Path] = {}
    for given in files:
        name, found, path = given.partition("=")
        if not found or not name:
            raise click.UsageError(
                f"{given!r} must be COLUMN=FILE where there are several; a single file can hold all columns"
            )
        if name in columns:
            raise click.UsageError(f"there are two files for the column {name!r}")
        columns[name] = _file(path)
    return columns


def _file(given: str) -> Path:
    path = Path(given)
    if not path.is_file():
        raise click.UsageError(f"there is no file {given}" if not path.exists() else f"{given} is not a file")
    return path


def _value(layout: str | None) -> "Dataset.Format.ValueType":
    return Dataset.Format.Value(layout.upper()) if layout else Dataset.FORMAT_UNSPECIFIED


def _tell(dataset: Dataset, as_json: bool) -> None:
    if as_json:
        print_json(as_dict(dataset))
    else:
        click.echo(f"{dataset.name}: {dataset.rows:,} rows of {_columns(dataset)}")


def _statistics(column: Column) -> list[str]:
    distinct = f"{column.distinct_count:,}" if column.HasField("distinct_count") else "> 1,000"
    if column.dtype.startswith("<U"):
        return [column.name, f"text of up to {column.longest_text:,}", "-", "-", "-", "-", distinct, "-"]
    values = (column.min, column.max, column.mean, column.standard_deviation)
    kind = _column(column).removeprefix(f"{column.name} ")
    return [column.name, kind, *map(number, values), distinct, f"{column.nonfinite_count:,}"]


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
    kind = "text" if column.dtype.startswith("<U") else column.dtype
    return f"{column.name} {kind}" + (f"[{shape}]" if shape else "")
