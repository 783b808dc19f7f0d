"""``chainrule models``: finds trained networks, fetches them, brings and removes them."""

from pathlib import Path

import click
import yaml

from chainrule.cli.options import json_option, server_option
from chainrule.cli.run import deleted, say
from chainrule.cli.sending import upload_bar
from chainrule.cli.table import print_table
from chainrule.cli.text import as_dict, local_time, number, optional, percent, print_json, size
from chainrule.client import Client
from chainrule.jobfile import read_network_file
from chainrule.resources import bare_alias, bare_id
from chainrule.v1.model_service_pb2 import Model


def _shape(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
    """``28,28,1`` as numbers."""
    try:
        return tuple(int(size) for size in value.split(",")) if value else ()
    except ValueError:
        raise click.BadParameter("must be whole numbers with commas between them, like 28,28,1") from None


@click.group()
def models() -> None:
    """List trained networks, download them, bring others, and give them other names.

    \b
      chainrule models list
      chainrule models download NAME -o digits.safetensors
      chainrule models download NAME --format onnx -o digits.onnx
      chainrule models create JOB best --id digits
      chainrule models upload digits.safetensors --id digits
      chainrule models alias production NAME
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
        for model in found:
            for alias in model.aliases:
                click.echo(_stands_for(alias, model))


@models.command()
@click.argument("name")
@server_option
@json_option("the model")
def show(name: str, server: str, as_json: bool) -> None:
    """Show a model and its layers."""
    with Client(server) as client:
        model = as_dict(client.get_model(name))
    if as_json:
        print_json(model)
    else:
        click.echo(yaml.safe_dump(model, sort_keys=False), nl=False)


@models.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--id", "model_id", default="", help="Lower-case letters, digits and hyphens. By default one is made.")
@click.option(
    "--network",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A YAML or JSON file with the layers, or a job file, for a FILE that doesn't say what it has parameters of.",
)
@click.option("--input-shape", callback=_shape, help="The shape of one input row, with --network: 64, or 28,28,1.")
@click.option("--input-column", default="", help="The dataset's column that the model takes.")
@server_option
@json_option("the model")
def upload(
    file: Path,
    model_id: str,
    network: Path | None,
    input_shape: tuple[int, ...],
    input_column: str,
    server: str,
    as_json: bool,
) -> None:
    """Upload a safetensors file as a model. It is checked before it exists, and never changes."""
    of = read_network_file(network) if network else None
    with Client(server) as client, upload_bar() as progress:
        model = client.upload_model(
            file, model_id, network=of, input_shape=input_shape, input_column=input_column, progress=progress
        )
    if as_json:
        print_json(as_dict(model))
    else:
        click.echo(f"{model.name}: {model.parameter_count:,} parameters")


@models.command()
@click.argument("job")
@click.argument("step", default="latest")
@click.option("--id", "model_id", default="", help="The model's name. By default it is called JOB-STEP.")
@server_option
@json_option("the model")
def create(job: str, step: str, model_id: str, server: str, as_json: bool) -> None:
    """Make a model of a checkpoint of JOB, whatever became of the job.

    STEP is one that `chainrule jobs checkpoints JOB` lists, or latest (the default), or best.

    \b
      chainrule models create JOB 1200 --id before-the-drop
    """
    with Client(server) as client:
        model = client.create_model(job, step if step.isdecimal() else f"@{step.removeprefix('@')}", model_id)
    if as_json:
        print_json(as_dict(model))
    else:
        click.echo(f"{model.name}: {model.parameter_count:,} parameters, as of {model.checkpoint}")


@models.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@server_option
@json_option('{"deleted": NAME} for each')
def delete(names: tuple[str, ...], server: str, as_json: bool) -> None:
    """Remove models. Jobs that started from them go on."""
    with Client(server) as client:
        for name in names:
            client.delete_model(name)
            deleted(name, as_json)


@models.command()
@click.argument("name")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path(),
    help="The file to write, or the folder to write it to, as NAME.safetensors or NAME.onnx. By default here.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["safetensors", "onnx"]),
    default="safetensors",
    show_default=True,
    help="Parameters by name, or a graph that other runtimes can run.",
)
@server_option
@json_option("the model and the file's path")
def download(name: str, output: Path, kind: str, server: str, as_json: bool) -> None:
    """Download a model as a file. Its checksum is verified before the file appears."""
    with Client(server) as client:
        path = client.download_model(name, output, onnx=kind == "onnx")
        model = client.get_model(name)
        inputs = [tensor.name for tensor in client.describe_model(model.name).inputs]
    if kind == "onnx" and inputs != [model.input_column]:
        made_of = ", ".join(inputs[:20])
        say(f"it takes {model.input_column!r} as the model makes it of {made_of}; its metadata says how")
    if as_json:
        print_json(as_dict(model) | {"path": str(path)})
    else:
        click.echo(str(path))


@models.command("alias")
@click.argument("alias")
@click.argument("name")
@server_option
@json_option("the model")
def set_alias(alias: str, name: str, server: str, as_json: bool) -> None:
    """Have ALIAS stand for the model NAME from now on, whatever it stood for before.

    Then @ALIAS is understood wherever a model is named; @latest is always the newest one.

    \b
      chainrule models alias staging NAME
      chainrule models alias production @staging
      chainrule predict @production --input rows.csv
    """
    with Client(server) as client:
        model = client.set_model_alias(alias, name)
    if as_json:
        print_json(as_dict(model))
    else:
        click.echo(_stands_for(bare_alias(alias), model))


@models.command()
@click.argument("aliases", metavar="ALIAS...", nargs=-1, required=True)
@server_option
@json_option('{"deleted": ALIAS} for each')
def unalias(aliases: tuple[str, ...], server: str, as_json: bool) -> None:
    """Remove aliases. Their models stay."""
    with Client(server) as client:
        for each in aliases:
            client.delete_model_alias(each)
            name = f"@{bare_alias(each)}"
            print_json({"deleted": name}) if as_json else say(f"{name} removed")


def _stands_for(alias: str, model: Model) -> str:
    return f"@{alias} stands for {model.name}"


def _row(model: Model) -> list[str]:
    return [
        bare_id(model.name),
        f"{model.parameter_count:,}",
        size(model.size_bytes),
        number(optional(model, "validation_loss")),
        percent(optional(model, "validation_accuracy")),
        local_time(model.create_time),
    ]
