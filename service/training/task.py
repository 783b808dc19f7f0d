"""Whether a specification and a dataset fit together, and what workers are to compute if they do.

Every shape and every label is held against the network before a job is created, so that a job that was accepted fails
for no reason that could have been known.
"""

import math
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np

from service.data.columns import Column
from service.data.datasets import Dataset, Datasets
from service.errors import Violations
from service.jobs.spec import JobSpec, Online
from service.training.circuits import check_circuits
from service.training.tables import check_tables
from worker.environments import is_installed
from worker.errors import InvalidValue, ShapeMismatch, TargetMismatch
from worker.layers import LAYERS
from worker.losses import LOSSES, Hinge, SoftmaxCrossEntropy, TargetColumn, missing_classes, named
from worker.network import Network
from worker.policy import Environment, PolicyTask
from worker.scores import CONFUSION, Scores, sizes
from worker.shards import Shards
from worker.task import Computation, Task

MOST_PARAMETERS = 100_000_000
MOST_ACTIVATIONS = 250_000_000
MOST_GRADIENTS = 500_000_000


def make_task(spec: JobSpec, dataset: Dataset, path: str) -> Computation:
    """The task of a job. Raises InvalidArgument, naming each field below `path` that doesn't fit."""
    if spec.environment is not None:
        return _policy_task(spec, spec.environment, path)
    assert spec.loss is not None  # noqa: S101 - a job without one has an environment
    violations, dtype = Violations(), spec.precision.dtype
    inputs = usable_column(dataset, spec.input_column, f"{path}.data.input_column", violations, dtype)
    targets = usable_column(dataset, spec.target_column, f"{path}.data.target_column", violations, dtype)
    shards = spec.shards_of(dataset.rows)
    if dataset.rows == 1 and spec.validation_fraction:
        violations.add(f"{path}.data.validation_fraction", "must be 0, since the dataset has a single row")
    if spec.weight_column and spec.online is None:
        check_weights(dataset, spec.weight_column, f"{path}.data.weight_column", violations, dtype)
    _check_watched(spec, shards, path, violations)
    shape = inputs.row_shape if inputs else ()
    network = Network(spec.layers, shape, spec.padding, spec.credit_assignment, spec.traits)
    if inputs:
        try:
            _check_size(network, spec, shards, path, violations)
            check_tables(network, inputs, f"{path}.network", violations)
            if targets:
                spec.loss.check(network.output_shape, _target(spec, network, targets))
                _check_score(spec, spec.loss.scores(network.output_shape), path, violations)
        except ShapeMismatch as error:
            violations.add(f"{path}.network.{_place(spec, error.path, error.field)}", error.problem)
        except InvalidValue as error:
            kind = next(kind for kind, cls in LOSSES.items() if isinstance(spec.loss, cls))
            violations.add(f"{path}.loss.{kind}.{error.field}", error.problem)
        except TargetMismatch as error:
            violations.add(f"{path}.data.target_column", f"{spec.target_column!r}: {error}")
    violations.raise_any()
    return Task(network, spec.loss, shards)


def dataset_of(spec: JobSpec, datasets: Datasets) -> Dataset:
    """A job's dataset; of one that learns to act, one with a row for every episode, and no columns. Raises NotFound."""
    if spec.online is not None:
        return rows_to_come(spec, spec.online)
    if spec.environment is not None:
        return Dataset(spec.environment.name, spec.environment.rows, (), 0, "", datetime.min)
    return datasets.get(spec.dataset)


def rows_to_come(spec: JobSpec, online: Online) -> Dataset:
    """The rows of an epoch that a client sends, of which nothing is known but their shape."""
    shapes = online.input_shape, online.target_shape, ()
    columns = tuple(
        Column(name, "int64", shape, min=0, max=0, nonfinite_count=0)
        for name, shape in zip(spec.arriving, shapes, strict=False)
    )
    return Dataset("online", spec.batch_size * online.steps_per_epoch, columns, 0, "", datetime.min)


def _policy_task(spec: JobSpec, environment: Environment, path: str) -> PolicyTask:
    """The task of a job that learns to act. Raises InvalidArgument."""
    violations = Violations()
    if not is_installed():
        violations.add(f"{path}.environment", "needs gymnasium on the server: pip install 'chainrule[server,rl]'")
    world, shards = environment.world, spec.shards_of(environment.rows)
    network = Network(spec.layers, world.input_shape, spec.padding, spec.credit_assignment, spec.traits)
    try:
        _check_size(network, spec, shards, path, violations, world.most_steps)
        if network.output_shape != (world.actions + 1,):
            violations.add(
                f"{path}.network.layers",
                f"end in {network.output_shape}; must end in ({world.actions + 1},): a logit for each of the "
                f"{world.actions} actions of {environment.name}, and the return that is expected",
            )
        for layer in sorted({slot.layer for slot in network.slots if slot.parameter.kept or slot.parameter.is_table}):
            violations.add(
                f"{path}.network.{_place(spec, (('layers', layer),))}",
                "can't be used to act: it counts rows, and an episode has many; use layer_norm, or dense layers",
            )
    except ShapeMismatch as error:
        violations.add(f"{path}.network.{_place(spec, error.path, error.field)}", error.problem)
    task = PolicyTask(network, environment, shards)
    _check_watched(spec, shards, path, violations)
    _check_score(spec, task.scores, path, violations)
    violations.raise_any()
    return task


def remark(spec: JobSpec, dataset: Dataset) -> str:
    """What is no reason to refuse a job, but worth to be said of it: classes that it can't learn. Else ""."""
    number = None if spec.online else dataset.column(spec.target_column)
    if not isinstance(spec.loss, SoftmaxCrossEntropy | Hinge) or number is None:
        return ""
    network = Network(spec.layers, dataset.columns[dataset.column(spec.input_column) or 0].row_shape, spec.padding)
    *_, classes = network.output_shape
    missing = missing_classes(classes, described_target(dataset.columns[number])) if classes > 1 else []
    return f"the dataset has no row of {named(missing)}, which can't be learned" if missing else ""


def shuffle_window(spec: JobSpec, dataset: Dataset, held_bytes: int) -> int:
    """How many neighbouring rows to shuffle among themselves, where workers can hold so much of a column; 0 for all."""
    column = dataset.columns[dataset.column(spec.input_column) or 0]
    row_bytes = max(math.prod(column.row_shape) * np.dtype(column.dtype).itemsize, 1)
    return 0 if dataset.rows * row_bytes <= held_bytes else max(held_bytes // 2 // row_bytes, 1)


def memory_bytes(task: Computation, spec: JobSpec) -> int:
    """What the trainer's machine needs: for vectors (parameters, a slot a shard, what the optimizer carries, spares),
    and beside each of twice as many slots for the sums of the scores.
    """
    scores = 8 * sum(size for _, size in sizes(task.scores)) * 2 * spec.shards
    vectors = task.network.size * (2 + len(spec.optimizer.carries))
    gradients = (spec.shards + (spec.accumulate > 1)) * _gradient_numbers(task.network, task.shards)
    return spec.precision.dtype.itemsize * (vectors + gradients) + scores


def usable_column(
    dataset: Dataset, name: str, field: str, violations: Violations, dtype: np.dtype[np.floating]
) -> Column | None:
    """A column that a network can take or be held against, computing in `dtype`; what is wrong with it is noted."""
    number = dataset.column(name)
    if number is None:
        names = ", ".join(repr(column.name) for column in dataset.columns[:20])
        violations.add(field, f"is {name[:100]!r}, which {dataset.name} doesn't have; its columns: {names}")
        return None
    column = dataset.columns[number]
    if column.is_text:
        violations.add(field, f"{name!r} holds text; must hold numbers: data.features and data.target make such of it")
        return None
    if column.nonfinite_count:
        violations.add(
            field, f"{name!r} has {column.nonfinite_count:,} elements that are NaN or infinite; upload it without"
        )
        return None
    largest = float(np.finfo(dtype).max)
    if max(-column.min, column.max) > largest:
        violations.add(
            field,
            f"{name!r} has elements from {column.min:g} to {column.max:g}; "
            f"must be within {largest:g} of 0, since networks compute in single precision",
        )
        return None
    return column


def described_target(column: Column) -> TargetColumn:
    """What a loss must know of a column."""
    return TargetColumn(column.integral, column.row_shape, column.min, column.max, column.missing)


def _target(spec: JobSpec, network: Network, column: Column) -> TargetColumn:
    """What the loss must know of the targets. Where rows are yet to come, all classes may."""
    described = described_target(column)
    if spec.online is None or not isinstance(spec.loss, SoftmaxCrossEntropy):
        return described
    return replace(described, max=max(described.max, *(size - 1 for size in network.output_shape[-1:])), missing=())


def check_batch(spec: JobSpec, network: Network, dataset: Dataset, path: str) -> None:
    """Holds a mini-batch, described as a dataset is, against the network. Raises InvalidArgument."""
    assert spec.loss is not None  # noqa: S101 - a job without one has an environment
    violations, dtype = Violations(), spec.precision.dtype
    inputs = usable_column(dataset, spec.input_column, path, violations, dtype)
    targets = usable_column(dataset, spec.target_column, path, violations, dtype)
    if spec.weight_column:
        check_weights(dataset, spec.weight_column, path, violations, dtype)
    if inputs:
        check_tables(network, inputs, path, violations)
    if targets:
        try:
            spec.loss.check(network.output_shape, _target(spec, network, targets))
        except TargetMismatch as error:
            violations.add(path, f"{spec.target_column!r}: {error}")
    violations.raise_any()


def _gradient_numbers(network: Network, shards: Shards) -> int:
    """How many numbers the gradient of a shard has at the most; the number of a table's row counts as two."""
    return network.dense + sum(room.capacity * (room.size + 2) for room in network.rooms(shards.most_rows))


def _check_size(
    network: Network, spec: JobSpec, shards: Shards, path: str, violations: Violations, inputs_a_row: int = 1
) -> None:
    """Notes a network that would not fit into the memory of a worker, or of the trainer. Raises ShapeMismatch.

    `inputs_a_row` is how often at the most the network is run for a row: an episode has many steps.
    """
    layers = f"{path}.network.layers"
    if network.size == 0:
        violations.add(layers, "has no parameters, so that there is nothing to learn; add a dense layer")
    elif not network.learns:
        violations.add(layers, "is a frozen network with nothing to learn; leave a layer with parameters unfrozen")
    if network.size > MOST_PARAMETERS:
        violations.add(layers, f"has {network.size:,} parameters in all; must have at most {MOST_PARAMETERS:,}")
    elif (numbers := _gradient_numbers(network, shards)) * spec.shards > MOST_GRADIENTS:
        violations.add(
            f"{path}.shards",
            f"is {spec.shards}, each with a gradient of {numbers:,} numbers that are gathered before they are "
            f"added; must be at most {max(MOST_GRADIENTS // numbers, 1):,} for this network",
        )
    feedback = sum(math.prod(shape) for shape in network.feedback_shapes.values())
    if feedback > MOST_PARAMETERS:
        violations.add(
            f"{path}.credit_assignment",
            f"is {spec.credit_assignment.value}, for which this network needs {feedback:,} random numbers; must be at "
            f"most {MOST_PARAMETERS:,}: use smaller layers, or BACKPROPAGATION",
        )
    shard_rows = math.ceil(spec.batch_size / spec.shards)
    check_circuits(network.layers, shard_rows * inputs_a_row, f"{path}.network", violations)
    activations = shard_rows * inputs_a_row * sum(math.prod(shape) for shape in network.shapes)
    if activations > MOST_ACTIVATIONS:
        violations.add(
            layers,
            f"makes {activations:,} numbers for the {shard_rows:,} rows of a shard; must be at most "
            f"{MOST_ACTIVATIONS:,}: use smaller layers, a smaller batch_size or more shards",
        )


def _check_score(spec: JobSpec, scores: Scores, path: str, violations: Violations) -> None:
    """Notes a score to stop early by that there isn't."""
    known = [name for name in scores if name != CONFUSION]
    score = spec.early_stopping.score if spec.early_stopping else ""
    if score and score not in known:
        violations.add(
            f"{path}.early_stopping.score",
            f"is {score[:100]!r}; the scores that come with this loss: {', '.join(known) or 'none'}",
        )


def _check_watched(spec: JobSpec, shards: Shards, path: str, violations: Violations) -> None:
    """Notes what is to be looked at after every epoch and isn't there."""
    if (spec.early_stopping or spec.schedule.plateau) and shards.validation_count == 0:
        violations.add(
            f"{path}.data.validation_fraction",
            "holds out no row of this dataset, but the job depends on such rows",
        )


def check_weights(
    dataset: Dataset, name: str, field: str, violations: Violations, dtype: np.dtype[np.floating]
) -> None:
    """Notes a column that can't say how much rows count."""
    column = usable_column(dataset, name, field, violations, dtype)
    if column and column.row_shape != ():
        violations.add(field, f"{name!r} has rows of shape {column.row_shape}; weights are one number a row")
    elif column and column.min < 0:
        violations.add(field, f"{name!r} has weights from {column.min:g}; none may be below 0")
    elif column and column.max == 0:
        violations.add(field, f"{name!r} has weights that are all 0, so that no row would count")


def _place(spec: JobSpec, path: tuple[tuple[str, int], ...], own: str = "") -> str:
    """The path to a layer, or to a field of its own, as a request spells it: "layers[2].residual.layers[0].dense"."""
    at: Any = spec
    names = []
    for field, index in path:
        at = getattr(at, field)[index]
        kind = next((kind for kind, cls in LAYERS.items() if isinstance(at, cls)), None)
        names += [f"{field}[{index}]", *([kind] if kind else [])]
    return ".".join([*names, own] if own else names)
