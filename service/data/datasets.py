"""The datasets of the service, each a directory of npy files beside a description.

A dataset appears at once, when its directory gets its name, and never changes after. Its columns are mapped into
memory when used, so that what is not touched costs nothing. The same file under the same name is the same dataset:
whoever brings it again gets what is there.
"""

import hashlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from service.access.principals import caller, require_owner
from service.data.columns import Column, blocks, describe
from service.data.formats import Format, read
from service.data.reading import Group, Reading, refuse
from service.errors import AlreadyExists, NotFound, ResourceExhausted
from service.files import new_directory, remove_directory, sweep
from worker.arrays import Array

DESCRIPTION = "dataset.json"


@dataclass(frozen=True)
class Content:
    """What a dataset is to be made of, or was: a file by its checksum, and how it was read."""

    sha256: str
    size_bytes: int
    format: Format | None = None
    """None to find it out."""
    groups: tuple[Group, ...] = ()

    @classmethod
    def of(cls, path: Path, format: Format | None = None, groups: tuple[Group, ...] = ()) -> "Content":  # noqa: A002
        """Of a file as it lies on the disk."""
        with path.open("rb") as file:
            return cls(hashlib.file_digest(file, "sha256").hexdigest(), file.tell(), format, groups)


@dataclass(frozen=True)
class Dataset:
    """What is known of a dataset."""

    id: str
    rows: int
    columns: tuple[Column, ...]
    size_bytes: int
    """Of the file it was made of, as is the checksum."""
    sha256: str
    created: datetime
    format: Format = Format.NPZ
    groups: tuple[Group, ...] = ()
    preparation_json: str = ""
    """How columns were made of another dataset's, if they were: a FittedPreparation."""
    created_by: str = ""
    """The principal that brought it; "" where nobody is asked."""

    @property
    def name(self) -> str:
        """The resource name."""
        return f"datasets/{self.id}"

    @property
    def stored_bytes(self) -> int:
        """What its columns take on the disk."""
        return sum(column.bytes(self.rows) for column in self.columns)

    def column(self, name: str) -> int | None:
        """The number of the column of that name."""
        return next((number for number, column in enumerate(self.columns) if column.name == name), None)


@dataclass(frozen=True)
class Quota:
    """How much all datasets together may be."""

    most_bytes: int = 50 << 30
    most_datasets: int = 10_000


class Datasets:
    """Datasets below one directory."""

    def __init__(self, root: Path, most_bytes: int, quota: Quota = Quota()) -> None:
        """`most_bytes` bounds the file of one dataset, and what it unpacks to."""
        sweep(root)
        self.root = root
        self._quota = quota
        self._room = threading.Lock()
        """Held from looking whether there is room until the room is taken."""
        self._stored = {dataset.id: dataset.stored_bytes for dataset in self.all()}
        self.most_bytes = most_bytes

    @property
    def stored_bytes(self) -> int:
        """What all of them take on the disk."""
        return sum(tuple(self._stored.values()))

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._stored)

    def get(self, dataset_id: str) -> Dataset:
        """A dataset's description. Raises NotFound."""
        try:
            return read_description(self.root / dataset_id)
        except FileNotFoundError:
            raise NotFound(f"datasets/{dataset_id}") from None

    def all(self) -> list[Dataset]:
        """All datasets by name."""
        found = []
        for path in sorted(self.root.iterdir()):
            with suppress(NotFound):  # deleted meanwhile
                if not path.name.startswith("."):
                    found.append(self.get(path.name))
        return found

    def array(self, dataset_id: str, column: int) -> Array:
        """A column, mapped into memory and not writable."""
        return read_column(self.root / dataset_id, column)

    def has(self, dataset_id: str, sha256: str, size_bytes: int) -> bool:
        """Whether there is a dataset of that name, made of that file. Raises AlreadyExists if of another."""
        try:
            there = self.get(dataset_id)
        except NotFound:
            return False
        return self.made_of(dataset_id, Content(sha256, size_bytes, None, there.groups)) is not None

    def made_of(self, dataset_id: str, content: Content) -> Dataset | None:
        """The dataset of that name, if it was made of this content; None if the name is free.

        Raises AlreadyExists if it was made of other content, or read in another way.
        """
        try:
            there = self.get(dataset_id)
        except NotFound:
            return None
        same_file = (there.sha256, there.size_bytes) == (content.sha256, content.size_bytes)
        if same_file and there.groups == content.groups and content.format in (None, there.format):
            return there
        what = "with other groups or another format" if same_file else "with other content"
        raise AlreadyExists(
            f"there is a dataset {there.name} already, {what}, and datasets never change; "
            "choose another name, or delete it first",
            reason="DATASET_EXISTS",
        )

    def check_size(self, size_bytes: int) -> None:
        """Raises ResourceExhausted if a file is too large for a dataset, or there is no room for it."""
        if size_bytes > self.most_bytes:
            raise ResourceExhausted(
                f"the file has {size_bytes:,} bytes; a dataset may have {self.most_bytes:,} (--max-dataset-bytes)",
                reason="DATASET_TOO_LARGE",
            )
        self._check_room(size_bytes)

    def add(self, dataset_id: str, content: Content, path: Path) -> Dataset:
        """Makes a dataset of a complete file, or returns the one that was made of it before.

        That the file is what `content` says, the caller has seen to.

        Raises InvalidArgument for a file that can be none, AlreadyExists if the name has other content,
        ResourceExhausted if there is no room, and FailedPrecondition if its format isn't installed.
        """
        if there := self.made_of(dataset_id, content):
            return there
        try:
            # The lock is taken when all is written, and held while the directory gets its name.
            with self._room_for(dataset_id) as take_room, new_directory(self.root / dataset_id) as directory:
                dataset = self._make(dataset_id, content, path, directory)
                write_description(directory, dataset)
                take_room(dataset.stored_bytes)
        except FileExistsError:
            if there := self.made_of(dataset_id, content):
                return there
            raise
        return dataset

    def delete(self, dataset_id: str) -> None:
        """Removes a dataset. Raises NotFound or PermissionDenied."""
        with self._room:
            there = self.get(dataset_id)
            require_owner(there.name, there.created_by)
            remove_directory(self.root / dataset_id)
            self._stored.pop(dataset_id, None)

    def _make(self, dataset_id: str, content: Content, path: Path, directory: Path) -> Dataset:
        rows = 0
        columns: list[Column] = []
        with TemporaryDirectory(dir=self.root, prefix=".reading-") as workspace:
            reading = Reading(self.most_bytes, Path(workspace), content.groups)
            known, arrays = read(path, content.format, reading)
            left = self.most_bytes
            for number, (name, array) in enumerate(arrays):
                left -= array.nbytes
                if left < 0:
                    raise refuse(f"unpacks to more than {self.most_bytes:,} bytes, which is the most")
                sha256 = _write(directory / f"{number}.npy", array)
                columns.append(replace(describe(name, array), sha256=sha256))
                rows = len(array)
        made = datetime.now(UTC)
        return Dataset(
            dataset_id,
            rows,
            tuple(columns),
            content.size_bytes,
            content.sha256,
            made,
            known,
            content.groups,
            created_by=caller().name,
        )

    @contextmanager
    def _room_for(self, dataset_id: str) -> Iterator[Callable[[int], None]]:
        """A function that takes room for a dataset, kept if the context is left without an error."""
        taken = 0
        with ExitStack() as held:

            def take(size_bytes: int) -> None:
                nonlocal taken
                held.enter_context(self._room)
                if dataset_id not in self._stored:  # else another was faster, which is seen when it gets its name
                    self._check_room(size_bytes)
                taken = size_bytes

            yield take
            self._stored[dataset_id] = taken

    def _check_room(self, size_bytes: int) -> None:
        used = self.stored_bytes
        if used + size_bytes > self._quota.most_bytes:
            raise ResourceExhausted(
                f"the dataset has {size_bytes:,} bytes; {used:,} of the {self._quota.most_bytes:,} that all datasets "
                "together may have are used: delete some, or start the coordinator with a larger --total-dataset-bytes",
                reason="NO_ROOM_FOR_DATASETS",
            )
        if len(self._stored) >= self._quota.most_datasets:
            raise ResourceExhausted(
                f"there are {len(self._stored):,} datasets, of the {self._quota.most_datasets:,} that there may be: "
                "delete some, or start the coordinator with a larger --total-dataset-count",
                reason="TOO_MANY_DATASETS",
            )


def read_description(directory: Path) -> Dataset:
    """The description of the dataset in a directory. Raises FileNotFoundError."""
    return _parse((directory / DESCRIPTION).read_text())


def write_description(directory: Path, dataset: Dataset) -> None:
    """Writes it beside the columns."""
    (directory / DESCRIPTION).write_text(json.dumps(asdict(dataset), default=datetime.isoformat))


def read_column(directory: Path, column: int) -> Array:
    """A column of the dataset in a directory, mapped into memory and not writable."""
    mapped: Array = np.load(directory / f"{column}.npy", mmap_mode="r", allow_pickle=False)
    return mapped


def _write(path: Path, array: Array) -> str:
    """As numpy.save, but block by block, so that a mapped file costs no memory. Returns the SHA-256."""
    dtype = array.dtype.newbyteorder("=")
    header = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_2_0(header, described)
    sha256 = hashlib.sha256()
    with path.open("wb") as file:
        for part in chain([header.getbuffer()], (block.view(np.uint8).data for block in blocks(array))):
            sha256.update(part)
            file.write(part)
    return sha256.hexdigest()


def _parse(text: str) -> Dataset:
    values: dict[str, Any] = json.loads(text)
    values["columns"] = tuple(
        Column(**{**column, "row_shape": tuple(column["row_shape"]), "missing": tuple(column.get("missing", ()))})
        for column in values["columns"]
    )
    values["groups"] = tuple(Group(group["name"], tuple(group["columns"])) for group in values.get("groups", ()))
    values["format"] = Format(values.get("format", Format.NPZ))
    values["created"] = datetime.fromisoformat(values["created"])
    return Dataset(**values)
