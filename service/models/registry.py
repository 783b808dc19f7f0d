"""The models of the service, each a directory with a safetensors file and a description.

The file alone is enough to use a model elsewhere: a tensor for every parameter, by layer, and the layers in its
metadata.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from service.access.principals import caller, require_owner
from service.data.preparation import FittedPreparation
from service.data.windows import Windows
from service.errors import AlreadyExists, NotFound
from service.files import new_directory, remove_directory, sweep
from service.models.incoming import Incoming, receive
from worker.arrays import Array, Shape
from worker.network import Network

FILE = "model.safetensors"
DESCRIPTION = "model.json"
CHUNK_BYTES = 1 << 20
MOST_CHARACTERS = 10_000
"""Of the names of all classes: they are part of a model's description, and many of those fit into a message."""

SETTLED_SECONDS = 1.0
"""How old a change of the directory must be for the next one to get another time."""

Stamp: TypeAlias = tuple[int, int]
"""What tells a model from another one that had its id before."""


@dataclass(frozen=True)
class Origin:
    """How a model was made, as far as it takes to judge it or to make it again: parts of the contract, in JSON."""

    loss_json: str
    """A chainrule.v1.Loss."""
    spec_json: str
    """The job's chainrule.v1.TrainingJobSpec, every default filled in; "" for a model that was uploaded."""
    dataset_sha256: str
    """Of the file that the dataset was made of; "" for a model that was uploaded."""
    preparation_json: str = ""
    """How inputs were made of the dataset's columns, and what targets stand for: a FittedPreparation; else ""."""
    rates: tuple[tuple[int, float], ...] = ()
    """The learning rates that held in place of the specification's, each with the steps that were applied before."""


def read_origin(values: dict[str, Any]) -> Origin:
    """An origin of what asdict made of it, by way of JSON."""
    return Origin(**{**values, "rates": tuple((step, rate) for step, rate in values.get("rates", ()))})


@dataclass(frozen=True)
class Model:
    """What is known of a model. One that a job made has the job's id."""

    id: str
    layers_json: str
    """The layers, as a chainrule.v1.Network in protobuf's JSON mapping."""
    input_shape: Shape
    parameter_count: int
    parameters_sha256: str
    validation_loss: float | None
    validation_accuracy: float | None
    size_bytes: int
    sha256: str
    created: datetime
    validation_scores: Mapping[str, float] = field(default_factory=dict)
    input_column: str = "x"
    """The dataset's column that it was trained on."""
    origin: Origin | None = None
    """Of one that was uploaded, only what its file tells; None if that is nothing."""
    classes: tuple[str, ...] = ()
    """The names of the classes, if they have some, in order."""
    windows: Windows | None = None
    """Of which rows its inputs are windows, if they are."""
    created_by: str = ""
    """The principal that created its job, or uploaded it; "" where nobody is asked."""
    checkpoint: tuple[str, int] | None = None
    """The id of the job and the step that it is of, if it was made of a checkpoint."""

    @property
    def job_id(self) -> str:
        """The id of the job that made it; "" if it was uploaded."""
        if self.checkpoint:
            return self.checkpoint[0]
        return "" if self.uploaded else self.id

    @property
    def preparation(self) -> FittedPreparation | None:
        """How inputs are made of columns, and what outputs stand for; None if they are what they are."""
        text = self.origin.preparation_json if self.origin else ""
        return FittedPreparation.from_json(text) if text else None

    @property
    def uploaded(self) -> bool:
        """Whether it was uploaded, and not made by a job."""
        return self.origin is None or not self.origin.spec_json

    @property
    def name(self) -> str:
        """The resource name."""
        return f"models/{self.id}"


def cut(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """A file in parts, each with its offset."""
    while data := file.read(CHUNK_BYTES):
        yield file.tell() - len(data), data


def parameters_sha256(params: Array) -> str:
    """The fingerprint of a flat vector: SHA-256 over it as it is, in float32 or float64, little-endian."""
    return hashlib.sha256(np.ascontiguousarray(params, params.dtype.newbyteorder("<")).tobytes()).hexdigest()


def read_model(directory: Path) -> Model:
    """The description of the model in a directory. Raises FileNotFoundError."""
    values: dict[str, Any] = json.loads((directory / DESCRIPTION).read_text())
    origin, windows, checkpoint = values.get("origin"), values.get("windows"), values.get("checkpoint")
    return Model(
        **{
            **values,
            "input_shape": tuple(values["input_shape"]),
            "created": datetime.fromisoformat(values["created"]),
            "origin": read_origin(origin) if origin else None,
            "classes": tuple(values.get("classes", ())),
            "windows": Windows(**windows) if windows else None,
            "checkpoint": (checkpoint[0], checkpoint[1]) if checkpoint else None,
        }
    )


class Models:
    """Models below one directory."""

    def __init__(self, root: Path, most_bytes: int = 1 << 30) -> None:
        """`most_bytes` bounds an uploaded file."""
        sweep(root)
        self._root = root
        self.most_bytes = most_bytes
        self._sizes = {model.id: model.size_bytes for model in self.all()}
        self._newest: tuple[int, str | None] | None = None
        """When the directory was changed, and the newest model since."""

    @property
    def stored_bytes(self) -> int:
        """What the files of all of them take on the disk."""
        return sum(tuple(self._sizes.values()))

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._sizes)

    def get(self, model_id: str) -> Model:
        """A model's description. Raises NotFound."""
        try:
            return read_model(self._root / model_id)
        except FileNotFoundError:
            raise NotFound(f"models/{model_id}") from None

    def stamp(self, model_id: str) -> Stamp:
        """Changes when a model is deleted and another gets its id, and never else. Raises NotFound."""
        try:
            found = (self._root / model_id / DESCRIPTION).stat()
        except FileNotFoundError:
            raise NotFound(f"models/{model_id}") from None
        return found.st_ino, found.st_mtime_ns

    def all(self) -> list[Model]:
        """All models, the oldest first."""
        models = []
        for path in self._root.iterdir():
            with suppress(NotFound):  # deleted meanwhile
                if not path.name.startswith("."):
                    models.append(self.get(path.name))
        return sorted(models, key=lambda model: (model.created, model.id))

    def newest(self) -> str | None:
        """The id of the newest model; None if there are none. Reads them all only after there was a change."""
        changed = self._root.stat().st_mtime_ns
        if self._newest is None or self._newest[0] != changed:
            models = self.all()
            found = models[-1].id if models else None
            if time.time_ns() - changed < SETTLED_SECONDS * 1e9:
                return found
            self._newest = changed, found
        return self._newest[1]

    def parameters(self, model_id: str, network: Network) -> Array:
        """A model's flat vector (parameters,), for the network that it is of. Raises NotFound."""
        try:
            with safe_open(self._root / model_id / FILE, framework="numpy") as file:
                dtype = file.get_tensor(network.slots[0].name).dtype if network.slots else np.float32
                vector: Array = np.empty(network.size, dtype)
                for slot in network.slots:
                    slot.view(vector)[...] = file.get_tensor(slot.name)
        except FileNotFoundError:
            raise NotFound(f"models/{model_id}") from None
        return vector

    def parameter_bytes(self, model_id: str) -> int:
        """What a model's parameters take: its file without the header, whose length comes first. Raises NotFound."""
        try:
            with (self._root / model_id / FILE).open("rb") as file:
                header = int.from_bytes(file.read(8), "little")
                return file.seek(0, os.SEEK_END) - 8 - header
        except FileNotFoundError:
            raise NotFound(f"models/{model_id}") from None

    def add(
        self,
        model_id: str,
        network: Network,
        layers_json: str,
        params: Array,
        validation: tuple[float | None, float | None, Mapping[str, float]],
        created: datetime,
        input_column: str = "x",
        origin: Origin | None = None,
        created_by: str = "",
        checkpoint: tuple[str, int] | None = None,
    ) -> Model:
        """Keeps a trained network, with its loss, accuracy and scores on the held-out rows.

        A model that is there already, from before a crash, is returned as it is; it must be of the same checkpoint, or
        AlreadyExists is raised.
        """
        if not (self._root / model_id).exists():
            with suppress(FileExistsError):
                return self._write(
                    model_id,
                    network,
                    layers_json,
                    params,
                    validation,
                    created,
                    input_column,
                    origin,
                    created_by,
                    checkpoint,
                )
        there = self.get(model_id)
        if there.checkpoint != checkpoint:
            self.check_free(model_id)
        return there

    def add_uploaded(
        self,
        model_id: str,
        network: Network,
        layers_json: str,
        params: Array,
        created: datetime,
        input_column: str,
        origin: Origin | None = None,
    ) -> Model:
        """Keeps a network that was trained elsewhere. Raises AlreadyExists."""
        try:
            return self._write(
                model_id,
                network,
                layers_json,
                params,
                (None, None, {}),
                created,
                input_column,
                origin,
                created_by=caller().name,
            )
        except FileExistsError:
            self.check_free(model_id)
            raise

    def check_free(self, model_id: str) -> None:
        """Raises AlreadyExists if there is a model of that id."""
        if (self._root / model_id).exists():
            raise AlreadyExists(
                f"there is a model models/{model_id} already, and models never change; "
                "choose another id, or delete it first",
                reason="MODEL_EXISTS",
            )

    def receive(self, size_bytes: int) -> AbstractContextManager[Incoming]:
        """A place for a file that comes in, gone when the context is left."""
        return receive(self._root, size_bytes)

    def delete(self, model_id: str) -> None:
        """Removes a model. Raises NotFound or PermissionDenied."""
        there = self.get(model_id)
        require_owner(there.name, there.created_by)
        remove_directory(self._root / model_id)
        self._sizes.pop(model_id, None)

    def tensors(self, model_id: str, names: Iterable[str]) -> dict[str, Array]:
        """Some of a model's parameters, by their names in its file. Raises NotFound."""
        self.get(model_id)
        try:
            with safe_open(self._root / model_id / FILE, framework="numpy") as file:
                return {name: file.get_tensor(name) for name in names}
        except FileNotFoundError:  # deleted meanwhile
            raise NotFound(f"models/{model_id}") from None

    def _write(
        self,
        model_id: str,
        network: Network,
        layers_json: str,
        params: Array,
        validation: tuple[float | None, float | None, Mapping[str, float]],
        created: datetime,
        input_column: str,
        origin: Origin | None = None,
        created_by: str = "",
        checkpoint: tuple[str, int] | None = None,
    ) -> Model:
        metadata = {
            "format": "chainrule",
            "network": layers_json,
            "input_shape": json.dumps(network.input_shape),
            "input_column": input_column,
            **({"loss": origin.loss_json} if origin and origin.loss_json else {}),
            **({"preparation": origin.preparation_json} if origin and origin.preparation_json else {}),
        }
        data = save({slot.name: slot.view(params) for slot in network.slots}, metadata)
        text = origin.preparation_json if origin else ""
        preparation = FittedPreparation.from_json(text) if text else FittedPreparation()
        model = Model(
            id=model_id,
            layers_json=layers_json,
            input_shape=network.input_shape,
            parameter_count=network.size,
            parameters_sha256=parameters_sha256(params),
            validation_loss=validation[0],
            validation_accuracy=validation[1],
            size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            created=created,
            validation_scores=validation[2],
            input_column=input_column,
            origin=origin,
            classes=preparation.classes if sum(map(len, preparation.classes)) <= MOST_CHARACTERS else (),
            windows=preparation.windows,
            created_by=created_by,
            checkpoint=checkpoint,
        )
        with new_directory(self._root / model_id) as directory:
            (directory / FILE).write_bytes(data)
            (directory / DESCRIPTION).write_text(json.dumps(asdict(model), default=datetime.isoformat))
        self._sizes[model_id] = model.size_bytes
        return model

    def chunks(self, model_id: str) -> Iterator[tuple[int, bytes]]:
        """The model's file in parts, each with its offset. Raises NotFound."""
        self.get(model_id)
        with (self._root / model_id / FILE).open("rb") as file:
            yield from cut(file)
