"""The models of the service, each a directory with a safetensors file and a description.

The file alone is enough to use a model elsewhere: a tensor for every parameter, by layer, and the layers in its
metadata.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from service.errors import NotFound
from service.files import new_directory, sweep
from worker.arrays import Array, Shape
from worker.network import Network

FILE = "model.safetensors"
DESCRIPTION = "model.json"
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Model:
    """What is known of a model. It has the id of the job that made it."""

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

    @property
    def name(self) -> str:
        """The resource name."""
        return f"models/{self.id}"


def parameters_sha256(params: Array) -> str:
    """The fingerprint of a flat vector: SHA-256 over it as it is, in float32 or float64, little-endian."""
    return hashlib.sha256(np.ascontiguousarray(params, params.dtype.newbyteorder("<")).tobytes()).hexdigest()


class Models:
    """Models below one directory."""

    def __init__(self, root: Path) -> None:
        sweep(root)
        self._root = root

    def get(self, model_id: str) -> Model:
        """A model's description. Raises NotFound."""
        try:
            values: dict[str, Any] = json.loads((self._root / model_id / DESCRIPTION).read_text())
        except FileNotFoundError:
            raise NotFound(f"models/{model_id}") from None
        shape, created = tuple(values["input_shape"]), datetime.fromisoformat(values["created"])
        return Model(**{**values, "input_shape": shape, "created": created})

    def all(self) -> list[Model]:
        """All models, the oldest first."""
        models = [self.get(path.name) for path in self._root.iterdir() if not path.name.startswith(".")]
        return sorted(models, key=lambda model: (model.created, model.id))

    def add(
        self,
        model_id: str,
        network: Network,
        layers_json: str,
        params: Array,
        validation: tuple[float | None, float | None, Mapping[str, float]],
        created: datetime,
    ) -> Model:
        """Keeps a trained network, with its loss, accuracy and scores on the held-out rows.

        A model that is there already, from before a crash, is returned as it is.
        """
        if (self._root / model_id).exists():
            return self.get(model_id)
        metadata = {"format": "chainrule", "network": layers_json, "input_shape": json.dumps(network.input_shape)}
        data = save({slot.name: slot.view(params) for slot in network.slots}, metadata)
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
        )
        with new_directory(self._root / model_id) as directory:
            (directory / FILE).write_bytes(data)
            (directory / DESCRIPTION).write_text(json.dumps(asdict(model), default=datetime.isoformat))
        return model

    def chunks(self, model_id: str) -> Iterator[tuple[int, bytes]]:
        """The model's file in parts, each with its offset. Raises NotFound."""
        self.get(model_id)
        with (self._root / model_id / FILE).open("rb") as file:
            while data := file.read(CHUNK_BYTES):
                yield file.tell() - len(data), data
