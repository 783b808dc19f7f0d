"""Job specifications."""

from typing import Any

from chainrule.v1 import training_job_pb2 as pb
from chainrule.v1.training_data_pb2 import TrainingData
from service.errors import Violations
from service.jobs.spec import JobSpec, OnDivergence, Online, Precision
from service.wire.fields import fill, parse
from service.wire.names import parse_model, parse_name
from service.wire.network import loss_message, network_message, parse_layers, parse_loss, parse_traits
from service.wire.online import refuse_beside_online
from service.wire.optimizer import early_stopping_message, optimizer_message, parse_early_stopping, parse_optimization
from service.wire.preparation import fill_preparation, parse_preparation
from worker.feedback import CreditAssignment
from worker.policy import Environment
from worker.shards import Split

LARGEST = 1_000_000
LARGEST_SHARDS = 1_024
MOST_PRIORITY = 100
MOST_CHECKPOINTS = 100


def parse_spec(message: pb.TrainingJobSpec, path: str) -> JobSpec:
    """A complete specification from what a client sent. Raises InvalidArgument, naming every wrong field."""
    violations = Violations()
    data = message.data
    environment, dataset, online = None, "", None
    if message.HasField("environment"):
        environment = parse(message.environment, Environment, f"{path}.environment", violations)
        for field in ("data", "loss"):
            if message.HasField(field):
                violations.add(f"{path}.{field}", "is given beside environment, which takes its place; leave it out")
    elif data.HasField("online"):
        online = parse(data.online, Online, f"{path}.data.online", violations)
        refuse_beside_online(message, path, violations)
    else:
        dataset = parse_name(data.dataset, "datasets", f"{path}.data.dataset", violations)
    fraction = (
        environment.validation_fraction
        if environment
        else _given(data, "validation_fraction", 0.0 if data.HasField("online") else 0.2)
    )
    if not 0 <= fraction < 1:
        violations.add(f"{path}.data.validation_fraction", f"is {fraction:g}; must be 0 up to, but not including, 1")
    if data.shuffle_window < 0:
        violations.add(f"{path}.data.shuffle_window", f"is {data.shuffle_window}; must be 0, for all rows, or more")
    default_split = Split.LAST if data.HasField("windows") else Split.RANDOM
    split = {0: default_split, 1: Split.RANDOM, 2: Split.LAST}.get(data.split)
    if split is None:
        violations.add(f"{path}.data.split", f"has the unknown value {data.split}; RANDOM or LAST")
    preparation = parse_preparation(data, f"{path}.data", violations)
    layers = parse_layers(message.network, f"{path}.network", violations)
    traits = parse_traits(message.network, f"{path}.network", violations)
    initial_model = ""
    if message.initial_model:
        initial_model = parse_model(message.initial_model, f"{path}.initial_model", violations)
    loss = None if message.HasField("environment") else parse_loss(message.loss, f"{path}.loss", violations)
    optimization = parse_optimization(message.optimizer, f"{path}.optimizer", violations)

    def whole(field: str, default: int, largest: int, limit: str = "", least: int = 1) -> int:
        value = int(_given(message, field, default))
        if not least <= value <= largest:
            violations.add(f"{path}.{field}", f"is {value}; must be {least} to {limit or format(largest, ',')}")
        return value

    epochs = whole("epochs", LARGEST if data.HasField("online") else 10, LARGEST)
    batch_size = whole("batch_size", 64, LARGEST)
    most_shards = max(min(batch_size, LARGEST_SHARDS), 1)
    shards = whole("shards", min(4, most_shards), most_shards, f"{most_shards:,}: no more than batch_size")
    most_workers = max(shards, 1)
    workers = whole("workers", min(2, most_workers), most_workers, f"{most_workers:,}: a worker needs a shard")
    asked = min(max(workers, 1), most_workers)  # What is wrong with `workers` is told once, and not of its bounds too.
    min_workers = whole("min_workers", 1, asked, f"{asked:,}: no more than workers")
    bounds = f"{most_workers:,}: no fewer than workers, and a worker needs a shard"
    max_workers = whole("max_workers", asked, most_workers, bounds, least=asked)
    if not -MOST_PRIORITY <= message.priority <= MOST_PRIORITY:
        violations.add(f"{path}.priority", f"is {message.priority}; must be -{MOST_PRIORITY} to {MOST_PRIORITY}")
    keep_last = int(_given(message.checkpoints, "keep_last", 2))
    if not 1 <= keep_last <= MOST_CHECKPOINTS:
        violations.add(f"{path}.checkpoints.keep_last", f"is {keep_last}; must be 1 to {MOST_CHECKPOINTS}")
    policy = {0: OnDivergence.FAIL, 1: OnDivergence.FAIL, 2: OnDivergence.ROLLBACK}.get(message.on_divergence)
    if policy is None:
        violations.add(f"{path}.on_divergence", f"has the unknown value {message.on_divergence}; FAIL or ROLLBACK")
    credit = _parse_credit_assignment(message.credit_assignment, f"{path}.credit_assignment", violations)
    precision = {0: Precision.FLOAT32, 1: Precision.FLOAT32, 2: Precision.FLOAT64}.get(message.precision)
    if precision is None:
        violations.add(f"{path}.precision", f"has the unknown value {message.precision}; FLOAT32 or FLOAT64")
    early_stopping = parse_early_stopping(message, path, violations)
    if fraction == 0:
        _refuse_without_validation(message, path, violations)
    violations.raise_any()
    return JobSpec(
        dataset=dataset,
        input_column=data.input_column or "x",
        target_column=data.target_column or "y",
        validation_fraction=fraction,
        layers=layers,
        loss=loss,
        **optimization._asdict(),
        epochs=epochs,
        batch_size=batch_size,
        shards=shards,
        workers=workers,
        seed=message.seed,
        min_workers=min_workers,
        max_workers=max_workers,
        priority=message.priority,
        on_divergence=policy or OnDivergence.FAIL,
        keep_last=keep_last,
        keep_best=message.checkpoints.keep_best,
        shuffle_window=data.shuffle_window if data.HasField("shuffle_window") else None,
        weight_column=data.weight_column,
        padding=message.network.padding if message.network.HasField("padding") else None,
        credit_assignment=credit,
        early_stopping=early_stopping,
        precision=precision or Precision.FLOAT32,
        traits=traits,
        environment=environment,
        initial_model=initial_model,
        preparation=preparation,
        split=split or Split.RANDOM,
        online=online,
    )


def spec_message(spec: JobSpec) -> pb.TrainingJobSpec:
    """The message for a specification; parsing it gives the specification back."""
    message = pb.TrainingJobSpec(
        network=network_message(spec.layers, spec.padding, spec.traits),
        optimizer=optimizer_message(spec),
        epochs=spec.epochs,
        batch_size=spec.batch_size,
        shards=spec.shards,
        workers=spec.workers,
        seed=spec.seed,
        min_workers=spec.min_workers,
        max_workers=spec.max_workers,
        priority=spec.priority,
        on_divergence=pb.TrainingJobSpec.OnDivergence.Value(spec.on_divergence.value),
        checkpoints=pb.CheckpointRetention(keep_last=spec.keep_last, keep_best=spec.keep_best),
        credit_assignment=pb.TrainingJobSpec.CreditAssignment.Value(spec.credit_assignment.value),
        early_stopping=early_stopping_message(spec.early_stopping),
        precision=pb.TrainingJobSpec.Precision.Value(spec.precision.value),
        initial_model=f"models/{spec.initial_model}" if spec.initial_model else "",
    )
    if spec.environment is not None:
        fill(message.environment, spec.environment)
    else:
        message.data.CopyFrom(_data_message(spec))
    if spec.loss is not None:
        message.loss.CopyFrom(loss_message(spec.loss))
    return message


def _data_message(spec: JobSpec) -> TrainingData:
    if spec.online is not None:
        message = TrainingData(
            input_column=spec.input_column, target_column=spec.target_column, weight_column=spec.weight_column
        )
        fill(message.online, spec.online)
        return message
    message = TrainingData(
        dataset=f"datasets/{spec.dataset}",
        input_column=spec.input_column,
        target_column=spec.target_column,
        validation_fraction=spec.validation_fraction,
        shuffle_window=spec.shuffle_window,
        weight_column=spec.weight_column,
        split=TrainingData.Split.Value(spec.split.value),
    )
    fill_preparation(message, spec.preparation)
    return message


def _refuse_without_validation(message: pb.TrainingJobSpec, path: str, violations: Violations) -> None:
    """Notes what looks at held-out rows, where there are none."""
    follows = message.optimizer.schedule.WhichOneof("kind") == "reduce_on_plateau"
    for field, asked in (
        ("early_stopping", message.HasField("early_stopping")),
        ("optimizer.schedule.reduce_on_plateau", follows),
    ):
        if asked:
            violations.add(f"{path}.{field}", "looks at held-out rows; data.validation_fraction must be above 0")


def _parse_credit_assignment(value: int, path: str, violations: Violations) -> CreditAssignment:
    names = {int(number): name for name, number in pb.TrainingJobSpec.CreditAssignment.items() if number}
    if value and value not in names:
        violations.add(path, f"has the unknown value {value}; one of {', '.join(names.values())}")
    return CreditAssignment(names.get(value, CreditAssignment.BACKPROPAGATION.value))


def _given(message: Any, field: str, default: float) -> float:
    """An optional field's value, or the default where the client said nothing."""
    return float(getattr(message, field)) if message.HasField(field) else default
