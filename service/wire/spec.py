"""Job specifications."""

from typing import Any

from chainrule.v1 import training_job_pb2 as pb
from service.errors import Violations
from service.jobs.spec import JobSpec
from service.training.optimizers import OPTIMIZERS, SINGLE, Adam, Optimizer, is_positive_single
from service.wire.fields import fill_kind, parse_kind
from service.wire.names import parse_name
from service.wire.network import layers_message, loss_message, parse_layers, parse_loss

LARGEST = 1_000_000
LARGEST_SHARDS = 1_024


def parse_spec(message: pb.TrainingJobSpec, path: str) -> JobSpec:
    """A complete specification from what a client sent. Raises InvalidArgument, naming every wrong field."""
    violations = Violations()
    data = message.data
    dataset = parse_name(data.dataset, "datasets", f"{path}.data.dataset", violations)
    fraction = _given(data, "validation_fraction", 0.2)
    if not 0 <= fraction < 1:
        violations.add(f"{path}.data.validation_fraction", f"is {fraction:g}; must be 0 up to, but not including, 1")
    layers = parse_layers(message.network, f"{path}.network", violations)
    loss = parse_loss(message.loss, f"{path}.loss", violations)
    optimizer = _parse_optimizer(message.optimizer, f"{path}.optimizer", violations)
    rate = _given(message.optimizer, "learning_rate", optimizer.default_learning_rate)
    if not is_positive_single(rate):
        violations.add(f"{path}.optimizer.learning_rate", f"is {rate:g}; must be above 0, and {SINGLE}")

    def whole(field: str, default: int, largest: int, limit: str = "") -> int:
        value = int(_given(message, field, default))
        if not 1 <= value <= largest:
            violations.add(f"{path}.{field}", f"is {value}; must be 1 to {limit or format(largest, ',')}")
        return value

    epochs = whole("epochs", 10, LARGEST)
    batch_size = whole("batch_size", 64, LARGEST)
    most_shards = max(min(batch_size, LARGEST_SHARDS), 1)
    shards = whole("shards", min(4, most_shards), most_shards, f"{most_shards:,}: no more than batch_size")
    most_workers = max(shards, 1)
    workers = whole("workers", min(2, most_workers), most_workers, f"{most_workers:,}: a worker needs a shard")
    violations.raise_any()
    assert loss is not None  # noqa: S101 - a missing one was noted
    return JobSpec(
        dataset=dataset,
        input_column=data.input_column or "x",
        target_column=data.target_column or "y",
        validation_fraction=fraction,
        layers=layers,
        loss=loss,
        optimizer=optimizer,
        learning_rate=rate,
        epochs=epochs,
        batch_size=batch_size,
        shards=shards,
        workers=workers,
        seed=message.seed,
    )


def spec_message(spec: JobSpec) -> pb.TrainingJobSpec:
    """The message for a specification; parsing it gives the specification back."""
    message = pb.TrainingJobSpec(
        data=pb.TrainingData(
            dataset=f"datasets/{spec.dataset}",
            input_column=spec.input_column,
            target_column=spec.target_column,
            validation_fraction=spec.validation_fraction,
        ),
        network=layers_message(spec.layers),
        loss=loss_message(spec.loss),
        optimizer=pb.Optimizer(learning_rate=spec.learning_rate),
        epochs=spec.epochs,
        batch_size=spec.batch_size,
        shards=spec.shards,
        workers=spec.workers,
        seed=spec.seed,
    )
    fill_kind(message.optimizer, spec.optimizer, OPTIMIZERS)
    return message


def _parse_optimizer(message: pb.Optimizer, path: str, violations: Violations) -> Optimizer:
    if message.WhichOneof("kind") is None:
        return Adam()
    return parse_kind(message, OPTIMIZERS, path, violations) or Adam()


def _given(message: Any, field: str, default: float) -> float:
    """An optional field's value, or the default where the client said nothing."""
    return float(getattr(message, field)) if message.HasField(field) else default
