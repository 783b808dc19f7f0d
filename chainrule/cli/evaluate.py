"""``chainrule evaluate``: how good a model is on a dataset."""

import click

from chainrule.cli.options import json_option, server_option
from chainrule.cli.text import as_dict, number, percent, print_json, seconds
from chainrule.client import Client
from chainrule.v1.network_pb2 import Loss

LOSSES = [field.name for field in Loss.DESCRIPTOR.oneofs_by_name["kind"].fields]


@click.command()
@click.argument("model")
@click.argument("dataset")
@click.option("--input-column", metavar="NAME", default="", help="What goes into the network. Default: as in its job.")
@click.option("--target-column", metavar="NAME", default="", help="What it is held against. Default: as in its job.")
@click.option("--weight-column", metavar="NAME", default="", help="How much each row counts. Default: all the same.")
@click.option("--loss", type=click.Choice(LOSSES), help="What to judge by. Default: what the model was trained with.")
@server_option
@json_option("loss and scores")
def evaluate(
    model: str,
    dataset: str,
    input_column: str,
    target_column: str,
    weight_column: str,
    loss: str | None,
    server: str,
    as_json: bool,
) -> None:
    """Judge MODEL by all rows of DATASET: its mean loss and its scores.

    \b
      chainrule evaluate @latest digits
      chainrule evaluate @production cars-2026 --target-column price
    """
    chosen = None
    if loss:
        chosen = Loss()
        getattr(chosen, loss).SetInParent()
    with Client(server) as client:
        found = client.evaluate_model(
            model,
            dataset,
            input_column=input_column,
            target_column=target_column,
            weight_column=weight_column,
            loss=chosen,
        )
    if as_json:
        print_json(as_dict(found))
        return
    click.echo(f"{found.model}: {found.rows:,} rows of {dataset} in {seconds(found.duration_seconds)}")
    lines = {"loss": number(found.loss)}
    lines |= {name: percent(value) if name == "accuracy" else number(value) for name, value in found.scores.items()}
    width = max(map(len, lines))
    for name, text in sorted(lines.items(), key=lambda line: (line[0] != "loss", line[0])):
        click.echo(f"  {name:{width}}  {text}")
