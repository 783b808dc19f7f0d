"""The datasets of the service, each a directory of npy files beside a description.

A dataset appears at once, when its directory gets its name, and never changes after. Its columns are mapped into
memory when used, so that what is not touched costs nothing.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

import numpy as np

from service.data.columns import Column, describe
from service.data.npz import read_npz
from service.errors import AlreadyExists, InvalidArgument, NotFound
from service.files import new_directory, remove_directory, sweep
from worker.arrays import Array

DESCRIPTION = "dataset.json"


@dataclass(frozen=True)
class Dataset:
    """What is known of a dataset."""

    id: str
    rows: int
    columns: tuple[Column, ...]
    size_bytes: int
    sha256: str
    created: datetime

    @property
    def name(self) -> str:
        """The resource name."""
        return f"datasets/{self.id}"

    def column(self, name: str) -> int | None:
        """The number of the column of that name."""
        return next((number for number, column in enumerate(self.columns) if column.name == name), None)


class Datasets:
    """Datasets below one directory."""

    def __init__(self, root: Path, most_bytes: int) -> None:
        """`most_bytes` bounds an uploaded file, and what it unpacks to."""
        sweep(root)
        self._root = root
        self.most_bytes = most_bytes

    def get(self, dataset_id: str) -> Dataset:
        """A dataset's description. Raises NotFound."""
        try:
            return _parse((self._root / dataset_id / DESCRIPTION).read_text())
        except FileNotFoundError:
            raise NotFound(f"datasets/{dataset_id}") from None

    def all(self) -> list[Dataset]:
        """All datasets by name."""
        found = []
        for path in sorted(self._root.iterdir()):
            with suppress(NotFound):  # deleted meanwhile
                if not path.name.startswith("."):
                    found.append(self.get(path.name))
        return found

    def array(self, dataset_id: str, column: int) -> Array:
        """A column, mapped into memory and not writable."""
        path = self._root / dataset_id / f"{column}.npy"
        mapped: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        return mapped

    def check_free(self, dataset_id: str) -> None:
        """Raises AlreadyExists if the name is taken."""
        if (self._root / dataset_id).exists():
            raise AlreadyExists(
                f"there is a dataset datasets/{dataset_id} already, and datasets never change; "
                "choose another name, or delete it first",
                reason="DATASET_EXISTS",
            )

    @contextmanager
    def receive(self, size_bytes: int) -> Iterator["Upload"]:
        """A place for an upload in progress, gone when the context is left."""
        with NamedTemporaryFile(dir=self._root, prefix=".upload-") as file:
            yield Upload(file, size_bytes)

    def add(self, dataset_id: str, upload: "Upload", sha256: str) -> Dataset:
        """Makes a dataset of a complete upload in npz format. Raises InvalidArgument or AlreadyExists."""
        upload.check(sha256)
        self.check_free(dataset_id)
        try:
            with new_directory(self._root / dataset_id) as directory:
                columns, rows = [], 0
                for number, (name, array) in enumerate(read_npz(upload.path, self.most_bytes)):
                    np.save(directory / f"{number}.npy", array, allow_pickle=False)
                    columns.append(describe(name, array))
                    rows = len(array)
                dataset = Dataset(dataset_id, rows, tuple(columns), upload.received, upload.sha256, datetime.now(UTC))
                (directory / DESCRIPTION).write_text(json.dumps(asdict(dataset), default=datetime.isoformat))
        except FileExistsError:
            self.check_free(dataset_id)
            raise
        return dataset

    def delete(self, dataset_id: str) -> None:
        """Removes a dataset. Raises NotFound."""
        self.get(dataset_id)
        remove_directory(self._root / dataset_id)


class Upload:
    """A file as it comes in."""

    def __init__(self, file: IO[bytes], size_bytes: int) -> None:
        self._file = file
        self._size_bytes = size_bytes
        self._hash = hashlib.sha256()
        self.received = 0

    @property
    def path(self) -> Path:
        """Where it lies."""
        return Path(self._file.name)

    @property
    def sha256(self) -> str:
        """The fingerprint of the bytes received."""
        return self._hash.hexdigest()

    def write(self, offset: int, data: bytes) -> None:
        """Takes the next part. Raises InvalidArgument if it isn't the next, or goes beyond the announced size."""
        if offset != self.received:
            raise InvalidArgument.of("chunk.offset", f"is {offset:,}; the next byte wanted is {self.received:,}")
        if offset + len(data) > self._size_bytes:
            raise InvalidArgument.of(
                "chunk.data", f"goes to byte {offset + len(data):,}; the header announced {self._size_bytes:,}"
            )
        self._file.write(data)
        self._hash.update(data)
        self.received += len(data)

    def check(self, sha256: str) -> None:
        """Raises InvalidArgument if bytes are missing or differ from those announced."""
        if self.received != self._size_bytes:
            raise InvalidArgument.of(
                "header.size_bytes", f"is {self._size_bytes:,}, but the upload ended after {self.received:,} bytes"
            )
        if self.sha256 != sha256.lower():
            raise InvalidArgument.of("header.sha256", f"is {sha256}, but the bytes received have {self.sha256}")
        self._file.flush()


def _parse(text: str) -> Dataset:
    values: dict[str, Any] = json.loads(text)
    columns = tuple(Column(**{**column, "row_shape": tuple(column["row_shape"])}) for column in values.pop("columns"))
    return Dataset(**{**values, "columns": columns, "created": datetime.fromisoformat(values["created"])})
