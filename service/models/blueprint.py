"""What makes a model of a job's parameters: written beside the job's checkpoints before its first step.

So a model can be made of any of them, whatever became of the job, of its dataset, and of what was prepared of that.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from service.files import write_atomically
from service.models.registry import Origin, read_origin
from worker.arrays import Shape

FILE = "model.json"


@dataclass(frozen=True)
class Blueprint:
    """All of a model but its parameters, and how good they are."""

    layers_json: str
    """The layers, as a chainrule.v1.Network in protobuf's JSON mapping."""
    input_shape: Shape
    input_column: str
    origin: Origin

    def write(self, directory: Path) -> None:
        """Writes it into a job's directory, once. Raises OSError."""
        if not (directory / FILE).exists():
            directory.mkdir(parents=True, exist_ok=True)
            write_atomically(directory / FILE, json.dumps(asdict(self)).encode())

    @staticmethod
    def read(directory: Path) -> "Blueprint | None":
        """That of a job; None if it has none, being older than this. Raises OSError."""
        try:
            values = json.loads((directory / FILE).read_bytes())
        except FileNotFoundError:
            return None
        origin = read_origin(values["origin"])
        return Blueprint(values["layers_json"], tuple(values["input_shape"]), values["input_column"], origin)
