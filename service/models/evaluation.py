"""How good a model is on a dataset: its loss and scores over all rows."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from service.data.datasets import Dataset, Datasets, read_column
from service.data.prepared import Roles, write_prepared
from service.errors import InvalidArgument, NotFound, Violations
from service.models.loaded import LoadedModel
from service.models.spreading import Ask, ask_nobody, spread
from service.training.task import check_weights, described_target, usable_column
from worker.errors import InvalidValue, TargetMismatch
from worker.gradient import Batch
from worker.losses import Loss
from worker.passes import Evaluation
from worker.scores import CONFUSION, values
from worker.task import Data, rows_at_once


@dataclass(frozen=True)
class Question:
    """By what a model is to be judged."""

    dataset: str
    input_column: str
    target_column: str
    weight_column: str
    """Empty if every row counts 1."""
    loss: Loss

    @property
    def columns(self) -> list[str]:
        """Inputs, targets, and weights if there are any."""
        return [self.input_column, self.target_column, *([self.weight_column] if self.weight_column else [])]


@dataclass(frozen=True)
class Judgement:
    """What it came to, as means over the rows."""

    loss: float
    scores: Mapping[str, float]
    rows: int


def judge(
    model: LoadedModel, question: Question, datasets: Datasets, stop: threading.Event, ask: Ask = ask_nobody
) -> Judgement:
    """Judges a model by every row of a dataset, in blocks of rows, added in their order whoever computes them.

    Raises NotFound without the dataset, InvalidArgument if it does not fit the model or the loss, Aborted soon after
    `stop`.
    """
    with _prepared(model, question, datasets) as (dataset, place):
        check(model, question, dataset)
        return _judge(model, question, dataset, _data(question, dataset, place), stop, ask)


def _judge(
    model: LoadedModel, question: Question, dataset: Dataset, data: Data, stop: threading.Event, ask: Ask
) -> Judgement:
    if not dataset.rows:
        raise InvalidArgument.of("dataset", f"is {dataset.name!r}, which has no rows to judge by")
    size = rows_at_once(model.network)

    def batch(start: int) -> Batch:
        return data.take(np.arange(start, min(start + size, dataset.rows)), model.params.dtype)

    evaluation = Evaluation(model.network, model.params, question.loss)
    try:
        total = reduce(add, spread(evaluation, range(0, dataset.rows, size), batch, ask, stop))
    except IndexError as error:  # such as a word that the network has no vector for
        raise InvalidArgument.of("input_column", str(error)) from error
    scores = values(question.loss.scores(model.network.output_shape), total.scores)
    return Judgement(total.mean_loss, {name: score for name, score in scores.items() if name != CONFUSION}, total.count)


def check(model: LoadedModel, question: Question, dataset: Dataset) -> None:
    """Raises InvalidArgument, naming every field by which a model can't be judged."""
    violations, network, dtype = Violations(), model.network, model.params.dtype
    inputs = usable_column(dataset, question.input_column, "input_column", violations, dtype)
    targets = usable_column(dataset, question.target_column, "target_column", violations, dtype)
    if question.weight_column:
        check_weights(dataset, question.weight_column, "weight_column", violations, dtype)
    if inputs and inputs.row_shape != network.input_shape:
        violations.add(
            "input_column",
            f"{question.input_column!r} has rows of shape {inputs.row_shape}; the model takes {network.input_shape}",
        )
    if targets:
        try:
            question.loss.check(network.output_shape, described_target(targets))
        except InvalidValue as error:
            violations.add(f"loss.{error.field}", error.problem)
        except TargetMismatch as error:
            violations.add("target_column", f"{question.target_column!r}: {error}")
    violations.raise_any()


@contextmanager
def _prepared(model: LoadedModel, question: Question, datasets: Datasets) -> Iterator[tuple[Dataset, Path]]:
    """The dataset as the model takes it, and where its columns lie. Raises NotFound or InvalidArgument."""
    dataset = datasets.get(question.dataset)
    source, fitted = datasets.root / dataset.id, model.model.preparation
    if fitted is None:
        yield dataset, source
        return
    if fitted.target and fitted.target.column != question.target_column:
        fitted = replace(fitted, target=None)
    roles = Roles(question.input_column, question.target_column, question.weight_column)
    with TemporaryDirectory(dir=datasets.root, prefix=".prepared-") as directory:
        place, dtype = Path(directory), model.params.dtype
        yield write_prepared(fitted, dataset, source, place, roles, dtype, datasets.check_size, ""), place


def _data(question: Question, dataset: Dataset, place: Path) -> Data:
    numbers = (dataset.column(name) for name in question.columns)
    try:
        return Data(*(read_column(place, number) for number in numbers if number is not None))
    except FileNotFoundError:  # deleted meanwhile
        raise NotFound(dataset.name) from None
