"""A model's file as it comes in, through one stream. Models are small, so that one that breaks off is sent anew."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO

from service.errors import InvalidArgument


class Incoming:
    """A file of which every byte is announced."""

    def __init__(self, file: IO[bytes], size_bytes: int) -> None:
        self._file = file
        self._size_bytes = size_bytes
        self._hash = hashlib.sha256()
        self._received = 0

    @property
    def path(self) -> Path:
        """Where it lies."""
        return Path(self._file.name)

    def write(self, offset: int, data: bytes) -> None:
        """Takes the next part. Raises InvalidArgument if it isn't the next, or goes beyond the announced size."""
        end = self._received + len(data)
        if offset != self._received:
            raise InvalidArgument.of("chunk.offset", f"is {offset:,}; the next byte wanted is {self._received:,}")
        if end > self._size_bytes:
            raise InvalidArgument.of(
                "chunk.data", f"goes to byte {end:,}; the header announced {self._size_bytes:,} bytes"
            )
        self._file.write(data)
        self._hash.update(data)
        self._received = end

    def finish(self, sha256: str) -> None:
        """Raises InvalidArgument if bytes are missing or differ from those announced; else the file can be read."""
        if self._received != self._size_bytes:
            raise InvalidArgument.of(
                "header.size_bytes", f"is {self._size_bytes:,}, but the upload ended after {self._received:,} bytes"
            )
        if (found := self._hash.hexdigest()) != sha256.lower():
            raise InvalidArgument.of("header.sha256", f"is {sha256}, but the bytes received have {found}")
        self._file.flush()


@contextmanager
def receive(directory: Path, size_bytes: int) -> Iterator[Incoming]:
    """A place for a file that comes in, gone when the context is left."""
    with NamedTemporaryFile(dir=directory, prefix=".upload-") as file:
        yield Incoming(file, size_bytes)
