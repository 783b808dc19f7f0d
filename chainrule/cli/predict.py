"""``chainrule predict``: asks a model about the rows of a file."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import click
import numpy as np
from numpy.typing import NDArray

from chainrule.cli.options import json_option, server_option
from chainrule.cli.run import say
from chainrule.cli.table import print_table
from chainrule.cli.text import number, percent, print_json
from chainrule.client import Client
from chainrule.inference.open_inference_pb2 import ModelMetadataResponse
from chainrule.predicting import TEXT, Numbers
from chainrule.rows import read_columns, read_rows, write_outputs
from chainrule.v1.model_service_pb2 import Model

T = TypeVar("T")

SHOWN_ROWS, SHOWN_NUMBERS = 50, 8


@click.command()
@click.argument("model")
@click.option(
    "-i",
    "--input",
    "source",
    type=click.File("rb"),
    required=True,
    help="The rows: .npy, .npz (arrays named as the model's inputs), or csv with a row on each line; - for standard "
    "input.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the outputs to a file instead: csv if it is called so, else .npy.",
)
@server_option
@json_option("every row's outputs")
def predict(model: str, source: BinaryIO, output: Path | None, server: str, as_json: bool) -> None:
    """Ask MODEL what it makes of some rows.

    MODEL is a name, or an alias such as @production; @latest is the newest. For a model that tells classes apart, the
    most probable class and its probability are shown; its outputs, in files and in JSON, are logits.

    A model that prepares a table's columns takes them by their names, from .npz or from csv with a header; the file may
    have others, such as the target. One that takes windows is asked about every window of the file's rows.

    \b
      chainrule predict @latest --input rows.csv
      chainrule predict digits-2 --input images.npy -o logits.npy
    """
    with Client(server) as client:
        described = client.describe_model(model)
        found = client.get_model(described.name)
        outputs = client.predict(described.name, _rows(source, found, described))
    chances = _probabilities(found, outputs)
    if output is not None:
        write_outputs(output, outputs)
        say(f"{output}: {len(outputs):,} rows from {found.name}")
    if as_json:
        for line in _objects(found, outputs, chances):
            print_json(line)
    elif output is None:
        _show(found, outputs, chances)


def _rows(source: BinaryIO, model: Model, described: ModelMetadataResponse) -> NDArray[Any] | dict[str, NDArray[Any]]:
    """The rows in a file, as the model takes them. Raises DatasetFileError."""
    name, inputs = str(getattr(source, "name", "input")), described.inputs
    if [tensor.name for tensor in inputs] == [model.input_column] and not (
        inputs[0].datatype == TEXT or model.windows.length
    ):
        return read_rows(source.read(), name, inputs[0].name, tuple(inputs[0].shape)[1:])
    texts = {tensor.name: tensor.datatype == TEXT for tensor in inputs}
    return read_columns(source.read(), name, texts, model.windows.length)


def _probabilities(model: Model, outputs: Numbers) -> Numbers | None:
    """Those of the classes, (rows, classes), for a model of classes."""
    kind = model.loss.WhichOneof("kind")
    if kind == "binary_cross_entropy" and outputs.shape[1:] == (1,) and len(model.classes) == 2:
        yes = 1 / (1 + np.exp(-outputs.astype(np.float64)))
        return np.concatenate([1 - yes, yes], axis=1)
    if model.loss.WhichOneof("kind") != "softmax_cross_entropy" or outputs.ndim != 2:
        return None
    powers = np.exp(outputs - outputs.max(axis=1, keepdims=True, initial=-np.inf))
    chances: Numbers = powers / powers.sum(axis=1, keepdims=True)
    return chances


def _objects(model: Model, outputs: Numbers, chances: Numbers | None) -> Iterator[dict[str, Any]]:
    for row, values in enumerate(outputs):
        line: dict[str, Any] = {"row": row}
        if chances is not None:
            best = int(chances[row].argmax())
            line |= {"class": _class(model, best, best), "probability": float(chances[row, best])}
        yield line | {"output": values.tolist()}


def _show(model: Model, outputs: Numbers, chances: Numbers | None) -> None:
    shown = range(min(len(outputs), SHOWN_ROWS))
    if chances is not None:
        best = chances.argmax(axis=1)
        columns = ["ROW>", "CLASS>", "PROBABILITY>"]
        lines: Iterable[Sequence[str]] = (
            [str(row), _class(model, best[row], str(best[row])), percent(chances[row, best[row]])] for row in shown
        )
    else:
        columns = ["ROW>", "OUTPUT"]
        lines = ([str(row), _numbers(outputs[row])] for row in shown)
    print_table(columns, lines, f"{model.name} was given no rows")
    if len(outputs) > SHOWN_ROWS:
        say(f"and {len(outputs) - SHOWN_ROWS:,} more rows: --json shows all, -o writes them to a file")


def _class(model: Model, number: int, nameless: T) -> str | T:
    """The name of a class, or what stands for it where it has none."""
    return model.classes[number] if number < len(model.classes) else nameless


def _numbers(values: Numbers) -> str:
    flat = values.reshape(-1)
    return ", ".join(map(number, flat[:SHOWN_NUMBERS])) + (", ..." if flat.size > SHOWN_NUMBERS else "")
