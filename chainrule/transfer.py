"""Files on their way: a dataset cut into an upload's messages, and a model put together from a download's.

Both ends know the file's size and SHA-256 beforehand, so that a file which broke off or was changed on the way is
refused rather than used.
"""

import hashlib
import io
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from chainrule.errors import TransferError
from chainrule.v1.dataset_service_pb2 import (
    ColumnGroup,
    Dataset,
    DatasetChunk,
    QueryUploadRequest,
    UploadDatasetHeader,
    UploadDatasetRequest,
)
from chainrule.v1.model_service_pb2 import DownloadModelResponse, Model

CHUNK_BYTES = 1024 * 1024

Progress = Callable[[int, int], None]
"""Called with the bytes that were sent so far and the bytes in all."""


class Upload:
    """The messages of one upload: a header, then chunks of 1 MiB.

    gRPC takes them in a thread of its own and replaces whatever is raised there by a text without meaning; so the
    exception is kept in `failure` for the caller to raise.
    """

    def __init__(
        self,
        source: Path | bytes,
        dataset_id: str,
        progress: Progress | None = None,
        layout: "Dataset.Format.ValueType" = Dataset.FORMAT_UNSPECIFIED,
        groups: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Reads the source once for its size and checksum. Raises OSError if it cannot be read."""
        self.failure: Exception | None = None
        self._source = source
        self._progress = progress
        with _open(source) as file:
            digest = hashlib.sha256()
            while data := file.read(CHUNK_BYTES):
                digest.update(data)
            self.size = file.tell()
        self._header = UploadDatasetHeader(
            dataset_id=dataset_id,
            format=layout,
            size_bytes=self.size,
            sha256=digest.hexdigest(),
            groups=column_groups(groups),
        )

    @property
    def key(self) -> QueryUploadRequest:
        """The question how much of it has arrived."""
        header = self._header
        return QueryUploadRequest(dataset_id=header.dataset_id, size_bytes=header.size_bytes, sha256=header.sha256)

    def messages(self, offset: int = 0) -> Iterator[UploadDatasetRequest]:
        """The header, and the chunks from byte `offset` on."""
        try:
            yield from self._messages(offset)
        except Exception as failure:
            self.failure = failure
            raise

    def _messages(self, offset: int) -> Iterator[UploadDatasetRequest]:
        yield UploadDatasetRequest(header=self._header)
        with _open(self._source) as file:
            file.seek(offset)
            while data := file.read(CHUNK_BYTES):
                yield UploadDatasetRequest(chunk=DatasetChunk(offset=offset, data=data))
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
