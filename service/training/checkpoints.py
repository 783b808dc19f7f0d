"""Checkpoints on disk: one safetensors file each, written whole or not at all.

The newest two are kept, so that there is one to go on from whatever happens while the newest is written.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import structlog
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from service.files import write_atomically
from service.training.state import TrainingState
from worker.gradient import Sums

KEPT = 2

_FILE = re.compile(r"step-(\d{12})\.safetensors")
_log = structlog.get_logger(__name__)


class Checkpoints:
    """The checkpoints of one job, in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def save(self, state: TrainingState) -> None:
        """Writes a checkpoint, and removes those no longer needed. Raises OSError, and then the older ones remain."""
        self._directory.mkdir(parents=True, exist_ok=True)
        tensors = {"params": state.params, **{f"optimizer.{name}": array for name, array in state.optimizer.items()}}
        # Python writes a float with all the digits it takes to read the same bits back.
        metadata = {"step": str(state.step), "epoch": json.dumps(asdict(state.epoch))}
        write_atomically(self._directory / f"step-{state.step:012d}.safetensors", save(tensors, metadata))
        for path in list(self._newest_first())[KEPT:]:
            path.unlink(missing_ok=True)

    def load(self) -> TrainingState | None:
        """The newest checkpoint that can be read, or None."""
        for path in self._newest_first():
            try:
                return _read(path)
            except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
                _log.error("checkpoint cannot be read; trying the one before", path=str(path), error=str(error))
        return None

    def _newest_first(self) -> Iterator[Path]:
        paths = self._directory.iterdir() if self._directory.exists() else ()
        yield from sorted((path for path in paths if _FILE.fullmatch(path.name)), reverse=True)


def _read(path: Path) -> TrainingState:
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the file is no mapping
    params = tensors.pop("params")
    optimizer = {name.removeprefix("optimizer."): array for name, array in tensors.items()}
    return TrainingState(int(metadata["step"]), params, optimizer, Sums(**json.loads(metadata["epoch"])))
