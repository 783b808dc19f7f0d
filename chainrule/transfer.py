"""Files on their way: cut into an upload's messages, and put together from a download's.

Both ends know the file's size and SHA-256 beforehand, so that a file which broke off or was changed on the way is
refused rather than used.
"""

import hashlib
import io
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

from chainrule.errors import TransferError
from chainrule.v1.dataset_service_pb2 import ColumnGroup, UploadDatasetRequest
from chainrule.v1.model_service_pb2 import DownloadModelResponse, Model, UploadModelRequest

CHUNK_BYTES = 1024 * 1024

Request = TypeVar("Request", UploadDatasetRequest, UploadModelRequest)

Progress = Callable[[int, int], None]
"""Called with the bytes that were sent so far and the bytes in all."""


class Upload(Generic[Request]):
    """The messages of one upload: a header, then chunks of 1 MiB.

    gRPC takes them in a thread of its own and replaces whatever is raised there by a text without meaning; so the
    exception is kept in `failure` for the caller to raise.
    """

    def __init__(self, source: Path | bytes, first: Request, progress: Progress | None = None) -> None:
        """`first` has the header, to which the source's size and checksum are added. Raises OSError."""
        self.failure: Exception | None = None
        self._source = source
        self._progress = progress
        with _open(source) as file:
            digest = hashlib.sha256()
            while data := file.read(CHUNK_BYTES):
                digest.update(data)
            self.size, self.sha256 = file.tell(), digest.hexdigest()
        first.header.size_bytes, first.header.sha256 = self.size, self.sha256
        self._first: Request = first

    def messages(self, offset: int = 0) -> Iterator[Request]:
        """The header, and the chunks from byte `offset` on."""
        try:
            yield from self._messages(offset)
        except Exception as failure:
            self.failure = failure
            raise

    def _messages(self, offset: int) -> Iterator[Request]:
        yield self._first
        with _open(self._source) as file:
            file.seek(offset)
            while data := file.read(CHUNK_BYTES):
                message = type(self._first)()
                message.chunk.offset, message.chunk.data = offset, data
                yield message
                offset += len(data)
                if self._progress is not None:
                    self._progress(offset, self.size)


def column_groups(groups: Mapping[str, Sequence[str]] | None) -> list[ColumnGroup]:
    """The messages for which columns of a table are gathered under which name."""
    return [ColumnGroup(name=name, columns=columns) for name, columns in (groups or {}).items()]


def save_download(model: Model, parts: Iterable[DownloadModelResponse], path: Path) -> None:
    """Writes a model's file to `path`: all of it, with the right checksum, or nothing.

    The first part says what the file is to be; where it doesn't, `model` does. Raises TransferError if something else
    arrives, OSError if it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Next to its destination, so that the last step is a rename within one file system, which is atomic.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with partial.open("xb") as file:
            _receive(model, parts, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _receive(model: Model, parts: Iterable[DownloadModelResponse], file: BinaryIO) -> None:
    digest, size = hashlib.sha256(), 0
    size_bytes, sha256 = model.size_bytes, model.sha256
    for part in parts:
        if part.sha256:
            size_bytes, sha256 = part.size_bytes, part.sha256
        if part.offset != size:
            raise TransferError(f"{model.name}: a part at byte {part.offset} came where byte {size} was due; try again")
        file.write(part.data)
        digest.update(part.data)
        size += len(part.data)
        if size > size_bytes:
            break
    if size != size_bytes:
        raise TransferError(f"{model.name}: {size} bytes came instead of {size_bytes}; try again")
    if digest.hexdigest() != sha256:
        raise TransferError(
            f"{model.name}: the file that came has SHA-256 {digest.hexdigest()}, not {sha256}; try again"
        )


def _open(source: Path | bytes) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
