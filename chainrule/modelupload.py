"""A model's file on its way to the service, cut into the messages of an upload."""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from chainrule.transfer import CHUNK_BYTES, Progress
from chainrule.v1.model_service_pb2 import ModelChunk, UploadModelHeader, UploadModelRequest


class ModelUpload:
    """The messages of one upload: a header, then chunks of 1 MiB.

    gRPC takes them in a thread of its own and replaces whatever is raised there by a text without meaning; so the
    exception is kept in `failure` for the caller to raise.
    """

    def __init__(self, source: Path | bytes, about: UploadModelHeader, progress: Progress | None = None) -> None:
        """Reads the source once for its size and checksum; `about` says the rest. Raises OSError."""
        self.failure: Exception | None = None
        self._source = source
        self._progress = progress
        with self._open() as file:
            digest = hashlib.sha256()
            while data := file.read(CHUNK_BYTES):
                digest.update(data)
            self.size = file.tell()
        self._header = UploadModelHeader()
        self._header.CopyFrom(about)
        self._header.size_bytes, self._header.sha256 = self.size, digest.hexdigest()

    def __iter__(self) -> Iterator[UploadModelRequest]:
        try:
            yield from self._messages()
        except Exception as failure:
            self.failure = failure
            raise

    def _messages(self) -> Iterator[UploadModelRequest]:
        yield UploadModelRequest(header=self._header)
        offset = 0
        with self._open() as file:
            while data := file.read(CHUNK_BYTES):
                yield UploadModelRequest(chunk=ModelChunk(offset=offset, data=data))
                offset += len(data)
                if self._progress is not None:
                    self._progress(offset, self.size)

    def _open(self) -> BinaryIO:
        return io.BytesIO(self._source) if isinstance(self._source, bytes) else self._source.open("rb")
