"""Tensors of the Open Inference Protocol <-> arrays.

What a client claims of a tensor is held against the bytes that came before anything is made of it.
"""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from chainrule.inference import open_inference_pb2 as pb
from service.data.preparation import FittedPreparation, Table
from service.errors import InvalidArgument
from worker.arrays import Array, Shape

DATATYPES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "FP32": ("<f4", "fp32_contents"),
        "FP64": ("<f8", "fp64_contents"),
        "FP16": ("<f2", ""),
        "INT64": ("<i8", "int64_contents"),
        "INT32": ("<i4", "int_contents"),
        "INT16": ("<i2", "int_contents"),
        "INT8": ("i1", "int_contents"),
        "UINT64": ("<u8", "uint64_contents"),
        "UINT32": ("<u4", "uint_contents"),
        "UINT16": ("<u2", "uint_contents"),
        "UINT8": ("u1", "uint_contents"),
        "BOOL": ("?", "bool_contents"),
    }
)
"""For each datatype that is taken: how its numbers lie in raw bytes, and the field that has them otherwise."""

OUTPUT, CLASS = "output", "class"
LONGEST_TEXT, MOST_CHARACTERS = 100_000, 25_000_000
"""Of a text in a request, and of room for all of a column's."""

LONGEST = 100
"""How much of a text that is wrong is repeated."""


def input_rows(request: pb.ModelInferRequest, name: str, row_shape: Shape) -> Array:
    """The rows of a request for a model with one input, (rows, *row_shape). Raises InvalidArgument.

    Of raw bytes the array is a view.
    """
    if len(request.inputs) != 1:
        raise InvalidArgument.of("inputs", f"has {len(request.inputs):,} tensors; must have one, named {name!r}")
    tensor = request.inputs[0]
    if tensor.name != name:
        raise InvalidArgument.of("inputs[0].name", f"is {tensor.name[:LONGEST]!r}; the model's input is {name!r}")
    if tensor.datatype not in DATATYPES:
        said = f"is {tensor.datatype[:LONGEST]!r}" if tensor.datatype else "is missing"
        raise InvalidArgument.of(
            "inputs[0].datatype", f"{said}; must be one of {', '.join(DATATYPES)}, such as FP32 for float32"
        )
    shape = tuple(tensor.shape)
    if shape[1:] != row_shape or not shape or shape[0] < 0:
        asked = ", ".join(map(str, shape[:16])) + (", ..." if len(shape) > 16 else "")
        wanted = ", ".join(map(str, (-1, *row_shape)))
        raise InvalidArgument.of(
            "inputs[0].shape", f"is [{asked}]; the model takes [{wanted}], where -1 stands for the number of rows"
        )
    raw = request.raw_input_contents
    numbers = _of_raw(raw, tensor, shape) if raw else _of_contents(tensor, shape)
    return numbers.reshape(shape)


def input_table(request: pb.ModelInferRequest, fitted: FittedPreparation) -> Table:
    """The columns of a request for a model that prepares them: a tensor for each, named as in the dataset.

    Of shape [rows], or [rows, numbers], and if the model takes windows [rows, length] or [rows, length, numbers]; texts
    are BYTES in UTF-8. Raises InvalidArgument.
    """
    long: Shape = (fitted.windows.length,) if fitted.windows else ()
    raw, columns = request.raw_input_contents, dict[str, Array]()
    if raw and len(raw) != len(request.inputs):
        raise InvalidArgument.of("raw_input_contents", f"has {len(raw):,} items for {len(request.inputs):,} tensors")
    for index, tensor in enumerate(request.inputs):
        path = f"inputs[{index}]"
        if tensor.name not in fitted.columns or tensor.name in columns:
            names = ", ".join(map(repr, fitted.columns[:20]))
            raise InvalidArgument.of(
                f"{path}.name", f"is {tensor.name[:LONGEST]!r}; the model takes each of these once: {names}"
            )
        if tuple(tensor.shape[1 : 1 + len(long)]) != long:
            raise InvalidArgument.of(
                f"{path}.shape",
                f"is {list(tensor.shape[:16])}; each row is a window of {long[0]:,} rows in the order of time: "
                f"[-1, {long[0]}], where -1 stands for the number of windows",
            )
        if tensor.datatype == "BYTES":
            columns[tensor.name] = _texts(tensor, raw[index] if raw else None, path, long)
            continue
        alone = pb.ModelInferRequest(inputs=[tensor], raw_input_contents=raw[index : index + 1])
        try:
            rows = input_rows(alone, tensor.name, tuple(tensor.shape[1:]))
        except InvalidArgument as error:
            wrong = error.violations[0]
            field = wrong.field.replace("inputs[0]", path).replace("contents[0]", f"contents[{index}]")
            raise InvalidArgument.of(field, wrong.description) from None
        columns[tensor.name] = rows.reshape(-1, *long) if rows.shape[1:] == (*long, 1) else rows
    if missing := [name for name in fitted.columns if name not in columns]:
        raise InvalidArgument.of(
            "inputs", f"has no tensor for column {missing[0]!r}, which the model's input is made of"
        )
    if len({len(column) for column in columns.values()}) > 1:
        raise InvalidArgument.of("inputs", "have tensors of different numbers of rows; must all have as many")
    return Table(fitted, columns)


def _texts(tensor: pb.ModelInferRequest.InferInputTensor, raw: bytes | None, path: str, long: Shape) -> Array:
    """Texts (rows, *long), each in raw bytes after its length of four bytes."""
    shape = tuple(tensor.shape)
    if not shape or shape[0] < 0 or shape[1:] not in (long, (*long, 1)):
        wanted = ", ".join(map(str, ("rows", *long)))
        raise InvalidArgument.of(f"{path}.shape", f"must be [{wanted}] or [{wanted}, 1] for texts")
    found, at = list(tensor.contents.bytes_contents), 0
    while raw is not None and at < len(raw):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        if end > len(raw):
            raise InvalidArgument.of(f"{path}", "has raw bytes that end within a text")
        found.append(raw[at + 4 : end])
        at = end
    if len(found) != math.prod(shape):
        raise InvalidArgument.of(f"{path}.shape", f"says {math.prod(shape):,} texts, but there are {len(found):,}")
    if (longest := max(map(len, found), default=0)) > LONGEST_TEXT or longest * len(found) > MOST_CHARACTERS:
        raise InvalidArgument.of(
            path, f"has a text of {longest:,} bytes; must have at most {LONGEST_TEXT:,}, and fewer in many rows"
        )
    try:
        return np.array([text.decode() for text in found], f"<U{max(longest, 1)}").reshape(-1, *long)
    except UnicodeDecodeError:
        raise InvalidArgument.of(path, "has a text that is not in UTF-8") from None


def asked_outputs(request: pb.ModelInferRequest, given: Sequence[str]) -> Sequence[str]:
    """Which of the outputs that a model gives a request asks for; all by default. Raises InvalidArgument."""
    names = " and ".join(map(repr, given))
    if len(request.outputs) > len(given):
        raise InvalidArgument.of("outputs", f"has {len(request.outputs):,} tensors; the model gives {names}")
    for index, output in enumerate(request.outputs):
        if output.name not in given:
            raise InvalidArgument.of(f"outputs[{index}].name", f"is {output.name[:LONGEST]!r}; the model gives {names}")
        if output.parameters:
            known = next(iter(output.parameters))[:LONGEST]
            raise InvalidArgument.of(
                f"outputs[{index}].parameters",
                f"has {known!r}, an extension of the protocol that this server doesn't have",
            )
    return tuple(dict.fromkeys(output.name for output in request.outputs)) or tuple(given)


def infer_response(
    request: pb.ModelInferRequest, model_id: str, version: str, outputs: Mapping[str, Array]
) -> pb.ModelInferResponse:
    """The response for what a model made of a request: raw bytes for raw bytes, contents for contents."""
    response = pb.ModelInferResponse(model_name=model_id, model_version=version, id=request.id)
    for name, numbers in outputs.items():
        if numbers.dtype.kind == "U":
            _add_texts(response, name, numbers, raw=bool(request.raw_input_contents))
            continue
        datatype = datatype_of(numbers.dtype)
        dtype, field = DATATYPES[datatype]
        tensor = response.outputs.add(name=name, datatype=datatype, shape=numbers.shape)
        if request.raw_input_contents:
            response.raw_output_contents.append(numbers.astype(dtype, copy=False).tobytes())
        else:
            getattr(tensor.contents, field).extend(numbers.ravel().tolist())
    return response


def _add_texts(response: pb.ModelInferResponse, name: str, texts: Array, *, raw: bool) -> None:
    tensor = response.outputs.add(name=name, datatype="BYTES", shape=texts.shape)
    encoded = [text.encode() for text in texts.ravel().tolist()]
    if raw:
        response.raw_output_contents.append(b"".join(len(text).to_bytes(4, "little") + text for text in encoded))
    else:
        tensor.contents.bytes_contents.extend(encoded)


def datatype_of(dtype: np.dtype[np.generic]) -> str:
    """What the protocol calls a type of floats."""
    return f"FP{dtype.itemsize * 8}"


def _of_raw(raw: Sequence[bytes], tensor: pb.ModelInferRequest.InferInputTensor, shape: Shape) -> Array:
    if len(raw) != 1:
        raise InvalidArgument.of("raw_input_contents", f"has {len(raw):,} items; must have one for the one input")
    if tensor.HasField("contents"):
        raise InvalidArgument.of("inputs[0].contents", "must be left out where raw_input_contents has the numbers")
    dtype = np.dtype(DATATYPES[tensor.datatype][0])
    expected = math.prod(shape) * dtype.itemsize
    if len(raw[0]) != expected:
        raise InvalidArgument.of(
            "raw_input_contents[0]",
            f"has {len(raw[0]):,} bytes; {tensor.datatype} of shape {list(shape)} takes {expected:,}",
        )
    if tensor.datatype == "BOOL":  # any byte but 0 is true, and NumPy must not see those other than 1
        return np.not_equal(np.frombuffer(raw[0], np.uint8), 0)
    numbers: Array = np.frombuffer(raw[0], dtype)
    return numbers


def _of_contents(tensor: pb.ModelInferRequest.InferInputTensor, shape: Shape) -> Array:
    dtype, field = DATATYPES[tensor.datatype]
    if not field:
        raise InvalidArgument.of("raw_input_contents", f"is missing, and the only place for {tensor.datatype}")
    for other, _ in tensor.contents.ListFields():
        if other.name != field:
            raise InvalidArgument.of(
                f"inputs[0].contents.{other.name}", f"is set; the place for {tensor.datatype} is {field}"
            )
    values = getattr(tensor.contents, field)
    if len(values) != math.prod(shape):
        raise InvalidArgument.of(
            f"inputs[0].contents.{field}",
            f"has {len(values):,} numbers; shape {list(shape)} takes {math.prod(shape):,}",
        )
    kind = np.dtype(dtype)
    if kind.kind in "iu" and kind.itemsize < 4 and values:
        limits = np.iinfo(kind)
        if min(values) < limits.min or max(values) > limits.max:
            raise InvalidArgument.of(
                f"inputs[0].contents.{field}",
                f"has numbers from {min(values):,} to {max(values):,}; {tensor.datatype} goes from "
                f"{limits.min:,} to {limits.max:,}",
            )
    return np.fromiter(values, kind, len(values))
