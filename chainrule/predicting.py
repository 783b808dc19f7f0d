"""Rows and outputs as messages of the Open Inference Protocol, in as many as the limit on a message asks for."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chainrule.channel import MAX_MESSAGE_BYTES
from chainrule.errors import DatasetFileError
from chainrule.inference.open_inference_pb2 import ModelInferRequest, ModelInferResponse, ModelMetadataResponse

ENVELOPE_BYTES = 16 * 1024  # what a message may have beside its numbers

Numbers = NDArray[np.floating]

DTYPES = {"FP32": "<f4", "FP64": "<f8"}


def row_shape(described: ModelMetadataResponse) -> tuple[int, ...]:
    """The shape of a row that a model takes."""
    return tuple(described.inputs[0].shape)[1:]


def as_rows(rows: ArrayLike, described: ModelMetadataResponse) -> Numbers:
    """Numbers of any type in the precision in which a model computes. Raises DatasetFileError."""
    try:
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(rows, DTYPES[described.inputs[0].datatype])
    except (TypeError, ValueError) as error:
        raise DatasetFileError(f"what a model is to predict from must be numbers: {error}") from error


def requests(rows: Numbers, described: ModelMetadataResponse) -> Iterator[ModelInferRequest]:
    """The requests for some rows (rows, ...), at least one, so that a wrong shape is the service's to tell of."""
    numbers = max(math.prod(rows.shape[1:]), math.prod(described.outputs[0].shape[1:]), 1)
    size = max((MAX_MESSAGE_BYTES - ENVELOPE_BYTES) // (rows.itemsize * numbers), 1)
    for start in range(0, max(len(rows) if rows.ndim else 1, 1), size):
        block = rows[start : start + size] if rows.ndim else rows
        request = ModelInferRequest(model_name=described.name, raw_input_contents=[block.tobytes()])
        request.inputs.add(name=described.inputs[0].name, datatype=described.inputs[0].datatype, shape=block.shape)
        yield request


def outputs(response: ModelInferResponse) -> Numbers:
    """The numbers of a response, (rows, ...)."""
    (tensor,) = response.outputs
    return np.frombuffer(response.raw_output_contents[0], DTYPES[tensor.datatype]).reshape(tensor.shape)
