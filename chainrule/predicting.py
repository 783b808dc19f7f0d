"""Rows and outputs as messages of the Open Inference Protocol, in as many as the limit on a message asks for."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chainrule.channel import MAX_MESSAGE_BYTES
from chainrule.errors import DatasetFileError
from chainrule.inference.open_inference_pb2 import ModelInferRequest, ModelInferResponse, ModelMetadataResponse

ENVELOPE_BYTES = 16 * 1024  # what a message may have beside its numbers

Numbers = NDArray[np.floating]

Columns: TypeAlias = Mapping[str, NDArray[Any]]
"""An array (rows, ...) for each of a model's inputs, by name."""

DTYPES = {"FP32": "<f4", "FP64": "<f8"}
TEXT = "BYTES"


def as_columns(rows: ArrayLike | Mapping[str, ArrayLike], described: ModelMetadataResponse) -> Columns:
    """Rows of any type as a model takes them: the one input, or an array for each of its columns, by name.

    Of columns beside those that it takes nothing is sent. Raises DatasetFileError.
    """
    names = [tensor.name for tensor in described.inputs]
    if not isinstance(rows, Mapping):
        if len(names) > 1:
            raise DatasetFileError(f"{described.name} takes a column each of {_listed(names)}: give them by name")
        rows = {names[0]: rows}
    if missing := [name for name in names if name not in rows]:
        raise DatasetFileError(
            f"there is no column {missing[0]!r}, which {described.name} takes; there are {_listed(list(rows))}"
        )
    columns = {tensor.name: _typed(rows[tensor.name], tensor.datatype) for tensor in described.inputs}
    lengths = {len(column) if column.ndim else 1 for column in columns.values()}
    if len(lengths) > 1:
        raise DatasetFileError(f"columns have {', '.join(map(str, sorted(lengths)))} rows; all must have as many")
    return columns


def requests(columns: Columns, described: ModelMetadataResponse) -> Iterator[ModelInferRequest]:
    """The requests for some rows, at least one, so that a wrong shape is the service's to tell of."""
    output = described.outputs[0]
    row_bytes = sum(column.itemsize * max(math.prod(column.shape[1:]), 1) for column in columns.values())
    output_bytes = np.dtype(DTYPES[output.datatype]).itemsize * math.prod(output.shape[1:])
    size = max((MAX_MESSAGE_BYTES - ENVELOPE_BYTES) // max(row_bytes, output_bytes, 1), 1)
    rows = max(len(column) if column.ndim else 1 for column in columns.values())
    for start in range(0, max(rows, 1), size):
        request = ModelInferRequest(model_name=described.name)
        request.outputs.add(name=output.name)
        for tensor in described.inputs:
            column = columns[tensor.name]
            block = column[start : start + size] if column.ndim else column
            request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=block.shape)
            request.raw_input_contents.append(_texts(block) if tensor.datatype == TEXT else block.tobytes())
        yield request


def outputs(response: ModelInferResponse) -> Numbers:
    """The numbers of a response, (rows, ...)."""
    (tensor,) = response.outputs
    return np.frombuffer(response.raw_output_contents[0], DTYPES[tensor.datatype]).reshape(tensor.shape)


def _typed(values: ArrayLike, datatype: str) -> NDArray[Any]:
    """Numbers in the precision in which a model takes them, or texts."""
    if datatype == TEXT:
        texts = np.asarray(values)
        return texts if texts.dtype.kind == "U" else texts.astype(str)
    try:
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(values, DTYPES[datatype])
    except (TypeError, ValueError) as error:
        raise DatasetFileError(f"what a model is to predict from must be numbers: {error}") from error


def _texts(texts: NDArray[Any]) -> bytes:
    """Each after its length of four bytes."""
    encoded = [text.encode() for text in texts.ravel().tolist()]
    return b"".join(len(text).to_bytes(4, "little") + text for text in encoded)


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")
