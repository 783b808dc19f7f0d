"""Checkpoints on disk: one safetensors file each, written whole or not at all.

The checksum of a file is part of its name, and read against its content, so that a damaged one is never gone on from:
the one before it is taken instead. Older ones are removed only when the newest is safe.
"""

import errno
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from safetensors import SafetensorError
from safetensors.numpy import load, save

from service.files import sync_directory, write_atomically
from service.jobs.events import EpochCompleted, reported_events
from service.training.arrivals import Taken
from service.training.state import TrainingState
from service.training.stopping import Streak
from worker.arrays import Array
from worker.gradient import Gradient, Sums
from worker.tables import TableGradient

_FILE = re.compile(r"(?P<kind>initial|step|best)-(?P<step>\d{12})-(?P<checksum>[0-9a-f]{8})\.safetensors")
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Saved:
    """A checkpoint as it lies on the disk."""

    path: Path
    step: int
    best: bool
    size_bytes: int
    time: datetime


class Checkpoints:
    """The checkpoints of one job, in a directory of its own."""

    def __init__(self, directory: Path, keep_last: int = 2, *, keep_best: bool = False) -> None:
        """Keeps the newest `keep_last`, and the one with the least validation loss if `keep_best` says so."""
        self._directory = directory
        self._keep_last = keep_last
        self.keep_best = keep_best

    def save(self, state: TrainingState) -> int:
        """Writes a checkpoint, and removes those no longer needed. Returns its size in bytes.

        Raises OSError, and then the older ones remain.
        """
        return self._write("step", state, self._keep_last)

    def save_best(self, state: TrainingState) -> None:
        """Writes a checkpoint that is kept until there is a better one. Raises OSError."""
        self._write("best", state, 1)

    def load(self) -> TrainingState | None:
        """The newest checkpoint that is whole, or None."""
        return next(self._whole("step"), None)

    def load_best(self, step: int) -> TrainingState:
        """The best checkpoint, which is of step `step`. Raises OSError if it is gone or damaged."""
        for state in self._whole("best"):
            if state.step == step:
                return state
        raise FileNotFoundError(errno.ENOENT, "the best checkpoint is gone or damaged", str(self._directory))

    def _whole(self, kind: str) -> Iterator[TrainingState]:
        """What the files of a kind hold, the newest first, but for those that are damaged."""
        for path in self._newest_first(kind):
            try:
                yield _read(path)
            except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
                _log.error("checkpoint is damaged; taking the one before", path=str(path), error=str(error))

    def saved(self) -> list[Saved]:
        """Those that there are now, the newest first; where the best one is of a step that has another, it alone."""
        best = self._newest_first("best")[:1]
        found: dict[int, Saved] = {}
        for path in (*best, *self._newest_first("step")):
            step = int(path.name.split("-")[1])
            with suppress(FileNotFoundError):  # given way to a newer one meanwhile
                stat = path.stat()
                time = datetime.fromtimestamp(stat.st_mtime, UTC)
                found.setdefault(step, Saved(path, step, path in best, stat.st_size, time))
        return [found[step] for step in sorted(found, reverse=True)]

    def read(self, saved: Saved) -> TrainingState:
        """What a checkpoint holds. Raises FileNotFoundError if it has gone, ValueError if it is damaged, OSError."""
        try:
            return _read(saved.path)
        except (SafetensorError, KeyError, TypeError) as error:
            raise ValueError(str(error)) from error

    def save_initial(self, tensors: Mapping[str, Array]) -> None:
        """Writes down what a job starts with, parameters by name. Raises OSError."""
        self._directory.mkdir(parents=True, exist_ok=True)
        data = save(dict(tensors))
        write_atomically(self._directory / f"initial-{0:012d}-{zlib.crc32(data):08x}.safetensors", data)
        sync_directory(self._directory.parent)

    def load_initial(self) -> Mapping[str, Array]:
        """What was written down for the start. Raises OSError if that is not there, or not whole."""
        for path in self._newest_first("initial"):
            data = path.read_bytes()
            if is_whole(path, data):
                return load(data)
        raise FileNotFoundError(errno.ENOENT, "the parameters that the job starts with are not there, or damaged")

    def _write(self, kind: str, state: TrainingState, keep: int) -> int:
        self._directory.mkdir(parents=True, exist_ok=True)
        data = _written(state)
        name = f"{kind}-{state.step:012d}-{zlib.crc32(data):08x}.safetensors"
        write_atomically(self._directory / name, data)
        # Others of this step or a later one belong to what was given up: rolled back, or damaged.
        others = [path for path in self._newest_first(kind) if path.name != name]
        older = [path for path in others if path.name < f"{kind}-{state.step:012d}"]
        for path in (*set(others).difference(older[: keep - 1]), *self._directory.glob(".*.part")):
            path.unlink(missing_ok=True)
        return len(data)

    def _newest_first(self, kind: str) -> list[Path]:
        """The files of a kind by their step, the newest first."""
        names = [path.name for path in self._directory.iterdir()] if self._directory.exists() else []
        ours = [name for name in names if (match := _FILE.fullmatch(name)) and match["kind"] == kind]
        return [self._directory / name for name in sorted(ours, reverse=True)]


def _written(state: TrainingState) -> bytes:
    tensors = {"params": state.params, **{f"carried.{name}": array for name, array in state.carried.items()}}
    # Python writes a float with all the digits it takes to read the same bits back.
    metadata = {
        "step": str(state.step),
        "epoch": json.dumps(asdict(state.epoch), default=np.ndarray.tolist),
        "rate_scale": repr(state.rate_scale),
        "best_loss": repr(state.best_loss),
        "unacknowledged": reported_events.dump_json(state.unacknowledged).decode(),
        "best_epoch": reported_events.dump_json((state.best_epoch,) if state.best_epoch else ()).decode(),
        "streak": json.dumps(asdict(state.streak)),
        "plateau": json.dumps(asdict(state.plateau)),
        "plateau_factor": repr(state.plateau_factor),
        "taken": json.dumps(list(map(asdict, state.taken))),
        "last_epoch": reported_events.dump_json((state.last_epoch,) if state.last_epoch else ()).decode(),
    }
    if state.pending:
        tensors["pending"] = state.pending.vector
        for number, table in enumerate(state.pending.tables):
            tensors[f"pending.{number}.rows"] = table.rows
            tensors[f"pending.{number}.values"] = table.values
        metadata["pending"] = json.dumps(asdict(state.pending.sums), default=np.ndarray.tolist)
    return save(tensors, metadata)


def is_whole(path: Path, data: bytes) -> bool:
    """Whether a checkpoint's content has the checksum in its name."""
    match = _FILE.fullmatch(path.name)
    return match is not None and int(match["checksum"], 16) == zlib.crc32(data)


def _read(path: Path) -> TrainingState:
    data = path.read_bytes()
    if not is_whole(path, data):
        raise ValueError("its content doesn't have the checksum in its name")
    # safetensors begins with the length of a header in JSON, eight bytes in little-endian order, and the header.
    length = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + length])["__metadata__"]
    tensors = load(data)
    params = tensors.pop("params")
    pending = None
    if "pending" in metadata:
        numbers = range(sum(name.endswith(".rows") for name in tensors if name.startswith("pending.")))
        tables = (TableGradient(*(tensors.pop(f"pending.{n}.{part}") for part in ("rows", "values"))) for n in numbers)
        pending = Gradient(tensors.pop("pending"), _sums(metadata["pending"]), tuple(tables))
    best_epoch, last_epoch = (_epoch(metadata.get(name, "[]")) for name in ("best_epoch", "last_epoch"))
    return TrainingState(
        step=int(metadata["step"]),
        params=params,
        carried={name.removeprefix("carried."): array for name, array in tensors.items()},
        epoch=_sums(metadata["epoch"]),
        rate_scale=float(metadata["rate_scale"]),
        best_loss=float(metadata["best_loss"]),
        unacknowledged=reported_events.validate_json(metadata["unacknowledged"]),
        best_epoch=best_epoch,
        streak=Streak(**json.loads(metadata["streak"])),
        plateau=Streak(**json.loads(metadata["plateau"])),
        plateau_factor=float(metadata["plateau_factor"]),
        pending=pending,
        taken=tuple(Taken(**each) for each in json.loads(metadata.get("taken", "[]"))),
        last_epoch=last_epoch,
    )


def _epoch(text: str) -> EpochCompleted | None:
    return next((event for event in reported_events.validate_json(text) if isinstance(event, EpochCompleted)), None)


def _sums(text: str) -> Sums:
    values: dict[str, Any] = json.loads(text)
    scores = {name: np.array(total, np.float64) for name, total in values.pop("scores").items()}
    if any(total.ndim != 1 for total in scores.values()):
        raise ValueError("its scores are not sums as they are kept now")
    return Sums(scores=scores, **values)
