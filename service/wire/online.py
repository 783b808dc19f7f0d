"""Mini-batches that clients send: what a message says of its tensors is held against the job, and against the bytes."""

import math

import numpy as np

from chainrule.v1 import online_pb2 as pb
from chainrule.v1 import training_job_pb2 as job_pb
from service.errors import InvalidArgument, Violations
from service.jobs.spec import JobSpec
from service.training.arrivals import Taken
from service.wire.tensors import DATATYPES, LONGEST
from worker.arrays import Array, Shape


def refuse_beside_online(message: job_pb.TrainingJobSpec, path: str, violations: Violations) -> None:
    """Notes what means nothing where rows come from a client."""
    data, optimizer = message.data, message.optimizer
    for field, _ in data.ListFields():
        if field.name not in ("online", "input_column", "target_column", "weight_column", "validation_fraction"):
            violations.add(f"{path}.data.{field.name}", "is of a dataset, and given beside online; leave it out")
    if data.validation_fraction:
        violations.add(
            f"{path}.data.validation_fraction", f"is {data.validation_fraction:g}; must be 0 beside online, or left out"
        )
    if message.on_divergence == job_pb.TrainingJobSpec.ROLLBACK:
        violations.add(f"{path}.on_divergence", "is ROLLBACK, for which rows would have to come again; must be FAIL")
    if optimizer.HasField("accumulate") and optimizer.accumulate != 1:
        violations.add(
            f"{path}.optimizer.accumulate",
            f"is {optimizer.accumulate}; must be 1 beside online: a larger batch_size does the same",
        )


def require_batch(message: pb.OnlineBatch, spec: JobSpec, step: int) -> tuple[Array, ...]:
    """The rows of step number `step`, from 1, for each of the job's columns in order. Raises InvalidArgument.

    The arrays are views of the message.
    """
    assert spec.online is not None  # noqa: S101 - else no batch is asked for
    if message.step != step:
        raise InvalidArgument.of("batch.step", f"is {message.step}; the next batch is for step {step}")
    shapes: dict[str, Shape] = dict(
        zip(spec.arriving, (spec.online.input_shape, spec.online.target_shape, ()), strict=False)
    )
    found: dict[str, Array] = {}
    for index, tensor in enumerate(message.tensors[: len(shapes) + 1]):
        path = f"batch.tensors[{index}]"
        if tensor.name not in shapes or tensor.name in found:
            names = ", ".join(map(repr, shapes))
            raise InvalidArgument.of(
                f"{path}.name", f"is {tensor.name[:LONGEST]!r}; the job takes each of these once: {names}"
            )
        found[tensor.name] = _numbers(tensor, (spec.batch_size, *shapes[tensor.name]), path)
    if missing := [name for name in shapes if name not in found]:
        raise InvalidArgument.of("batch.tensors", f"has none for {missing[0]!r}")
    return tuple(found[name] for name in shapes)


def step_message(taken: Taken, durable: int) -> pb.TrainOnlineResponse:
    """The answer to a batch."""
    return pb.TrainOnlineResponse(
        step=pb.OnlineStep(
            step=taken.step, loss=taken.loss, gradient_norm=taken.gradient_norm, durable_step=min(durable, taken.step)
        )
    )


def _numbers(tensor: pb.OnlineTensor, shape: Shape, path: str) -> Array:
    if tensor.datatype not in DATATYPES:
        said = f"is {tensor.datatype[:LONGEST]!r}" if tensor.datatype else "is missing"
        raise InvalidArgument.of(
            f"{path}.datatype", f"{said}; must be one of {', '.join(DATATYPES)}, such as FP32 for float32"
        )
    if tuple(tensor.shape) != shape:
        said = ", ".join(map(str, tensor.shape[:16])) + (", ..." if len(tensor.shape) > 16 else "")
        raise InvalidArgument.of(
            f"{path}.shape",
            f"of {tensor.name!r} is [{said}]; must be {list(shape)}: batch_size, then the shape of a row",
        )
    dtype = np.dtype(DATATYPES[tensor.datatype][0])
    if len(tensor.data) != (expected := math.prod(shape) * dtype.itemsize):
        raise InvalidArgument.of(
            f"{path}.data",
            f"has {len(tensor.data):,} bytes; {tensor.datatype} of shape {list(shape)} takes {expected:,}",
        )
    if tensor.datatype == "BOOL":  # any byte but 0 is true, and NumPy must not see those other than 1
        return np.not_equal(np.frombuffer(tensor.data, np.uint8), 0).reshape(shape)
    numbers: Array = np.frombuffer(tensor.data, dtype).reshape(shape)
    return numbers
