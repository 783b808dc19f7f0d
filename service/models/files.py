"""What comes in as a model's file: safetensors, ours or anyone's, read as parameters of a network.

The library checks that the file is one; the tensors are then read by their offsets, since NumPy has no bfloat16.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from service.errors import InvalidArgument, Violations
from service.training.task import MOST_ACTIVATIONS, MOST_PARAMETERS
from worker.arrays import Array, Shape
from worker.errors import ShapeMismatch
from worker.network import Network

MOST_HEADER_BYTES = 16 << 20
"""A header of a thousand tensors with the network takes a tenth of a megabyte."""

MOST_AXES, LONGEST_NAME = 8, 100

DTYPES: Mapping[str, str] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""How the types that are taken lie in the file."""


@dataclass(frozen=True)
class Tensor:
    """Where a tensor lies in a file."""

    dtype: str
    shape: Shape
    offset: int

    def read(self, path: Path) -> Array:
        """Its numbers in single precision; infinite where they are beyond that."""
        stored = np.memmap(path, DTYPES[self.dtype], "r", self.offset, self.shape) if 0 not in self.shape else None
        if stored is None:
            return np.empty(self.shape, np.float32)
        if self.dtype == "BF16":  # the upper half of a float32
            return (stored.astype("<u4") << 16).view("<f4")
        with np.errstate(over="ignore"):
            return np.asarray(stored, np.float32)


class ModelFile:
    """A safetensors file that somebody sent."""

    def __init__(self, path: Path) -> None:
        """Reads the header. Raises InvalidArgument if it isn't such a file."""
        self._path = path
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = file.read(min(length, MOST_HEADER_BYTES))
        try:
            if length > MOST_HEADER_BYTES:
                raise ValueError("a header of absurd size")
            with safe_open(path, framework="numpy"):
                described: dict[str, Any] = json.loads(header)
        except (SafetensorError, ValueError, RecursionError):
            raise InvalidArgument.of(
                "chunk.data",
                "is not a model's file in the safetensors format: it is damaged, of another format, "
                f"or has a header of more than {MOST_HEADER_BYTES:,} bytes",
                reason="NO_MODEL_FILE",
            ) from None
        self.metadata: Mapping[str, str] = described.pop("__metadata__", None) or {}
        self.tensors = {
            name: Tensor(entry["dtype"], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0])
            for name, entry in described.items()
        }

    def parameters(self, network: Network) -> Array:
        """The flat vector of a network (parameters,). Raises InvalidArgument, naming every tensor that is wrong."""
        violations = Violations()
        slots = {slot.name: slot for slot in network.slots}
        for name in self.tensors.keys() - slots.keys():
            violations.add(f"tensors.{name[:LONGEST_NAME]}", "is none of the network's parameters; leave it out")
        for name, slot in slots.items():
            tensor, shape = self.tensors.get(name), slot.parameter.shape
            if tensor is None:
                violations.add(f"tensors.{name}", f"is missing; must be there, of shape {shape}")
            elif tensor.shape != shape:
                violations.add(f"tensors.{name}", f"has shape {tensor.shape}; must have {shape}")
            elif tensor.dtype not in DTYPES:
                violations.add(f"tensors.{name}", f"is of type {tensor.dtype}; must be {', '.join(DTYPES)}")
        violations.raise_any()
        vector: Array = np.empty(network.size, np.float32)
        for name, slot in slots.items():
            view = slot.view(vector)
            view[...] = self.tensors[name].read(self._path)
            if broken := view.size - int(np.count_nonzero(np.isfinite(view))):
                violations.add(
                    f"tensors.{name}", f"has {broken:,} elements that are NaN, infinite or beyond single precision"
                )
        violations.raise_any()
        return vector


def check_shape(shape: Shape, path: str, violations: Violations) -> None:
    """Notes an input shape that can't be one."""
    if len(shape) > MOST_AXES or not all(1 <= size <= MOST_ACTIVATIONS for size in shape):
        violations.add(path, f"must have at most {MOST_AXES} sizes, each 1 to {MOST_ACTIVATIONS:,}")


def check_network(network: Network, path: str, violations: Violations) -> None:
    """Notes a network whose layers don't fit each other, or that is too large."""
    try:
        numbers = sum(int(np.prod(shape, dtype=object)) for shape in network.shapes)
    except ShapeMismatch as error:
        violations.add(path, str(error))
        return
    if network.size > MOST_PARAMETERS or numbers > MOST_ACTIVATIONS:
        violations.add(
            path,
            f"has {network.size:,} parameters and makes {numbers:,} numbers of a row; "
            f"must be at most {MOST_PARAMETERS:,} and {MOST_ACTIVATIONS:,}",
        )
