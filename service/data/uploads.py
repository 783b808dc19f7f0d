"""Uploads on their way: files that grow, stay when the stream breaks off, and are given up after a day.

An upload is known by its dataset's id and the size and checksum of its file, so that whoever begins again finds it
without having remembered anything, also after a restart of the coordinator. How far it got is the size of the file.
Whether the bytes are the right ones is seen at the end, over all of them as they lie on the disk.
"""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TypeVar

from service.errors import Aborted, FailedPrecondition, InvalidArgument, ResourceExhausted, ServiceError
from service.files import sync_directory

SILENT_SECONDS = 5.0
"""A stream that has sent nothing for so long gives way to another of the same upload: its client may be gone."""

SYNC_BYTES = 32 << 20
"""So much may be lost if the machine loses power; what a process that ends has written stays."""

MOST_PARTS = 1_000

T = TypeVar("T")


@dataclass(frozen=True)
class UploadKey:
    """What an upload is known by."""

    dataset_id: str
    sha256: str
    size_bytes: int

    @property
    def file_name(self) -> str:
        """Under which it lies on the disk. All three parts are checked before: an id has no dots or slashes."""
        return f"{self.dataset_id}.{self.sha256}.{self.size_bytes}"


@dataclass(frozen=True)
class Keeping:
    """How much of what is unfinished is kept, and for how long."""

    most_bytes: int = 10 << 30
    seconds: float = 24 * 3600.0


class Uploads:
    """Unfinished uploads below one directory. May be used by several threads."""

    def __init__(
        self,
        root: Path,
        keeping: Keeping = Keeping(),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` tells the time as files' time stamps do."""
        root.mkdir(parents=True, exist_ok=True)
        self._root = root
        self._keeping = keeping
        self._clock = clock
        self._lock = threading.Lock()
        self._at_work: dict[UploadKey, Upload] = {}
        self._sweep()

    def committed(self, key: UploadKey) -> int:
        """How many bytes have arrived."""
        try:
            return (self._root / key.file_name).stat().st_size
        except FileNotFoundError:
            return 0

    @contextmanager
    def open(self, key: UploadKey) -> Iterator["Upload"]:
        """The upload, to go on with. What has arrived when the context is left is kept.

        Raises Aborted if another stream is at work on it, ResourceExhausted if unfinished uploads have no room for it.
        """
        upload = self._claim(key)
        try:
            yield upload
        finally:
            try:
                upload.close()
            finally:
                self._release(upload)

    def finish(self, upload: "Upload", make: Callable[[Path], T]) -> T:
        """Makes something of the complete file, which is gone afterwards, and returns it.

        Raises InvalidArgument if bytes are missing or differ from those announced, and what `make` raises; after
        ResourceExhausted, FailedPrecondition or an OSError the file stays, and need not be sent again.
        """
        try:
            with upload.finishing():
                try:
                    upload.check()
                    made = make(upload.path)
                except (ResourceExhausted, FailedPrecondition):
                    raise
                except ServiceError:
                    if upload.complete:
                        upload.path.unlink(missing_ok=True)
                    raise
                upload.path.unlink(missing_ok=True)
                return made
        finally:
            self._release(upload)

    def _claim(self, key: UploadKey) -> "Upload":
        with self._lock:
            self._sweep()
            other = self._at_work.get(key)
            if other is not None and not other.give_way(self._clock() - SILENT_SECONDS):
                raise Aborted(
                    f"another call is uploading this file as datasets/{key.dataset_id}; try again in a few seconds",
                    reason="UPLOAD_IN_PROGRESS",
                )
            self._make_room(key)
            self._at_work[key] = upload = Upload(self._root / key.file_name, key, self._clock)
            return upload

    def _release(self, upload: "Upload") -> None:
        with self._lock:
            if self._at_work.get(upload.key) is upload and not upload.is_busy:
                del self._at_work[upload.key]

    def _sweep(self) -> None:
        """Removes what has waited for too long."""
        for path, stat in self._waiting():
            if stat.st_mtime < self._clock() - self._keeping.seconds:
                path.unlink(missing_ok=True)

    def _make_room(self, key: UploadKey) -> None:
        """Removes what has waited longest, as much as has to go. Raises ResourceExhausted if that is not enough."""
        claimed = sum(upload.key.size_bytes for upload in self._at_work.values()) + key.size_bytes
        if claimed > self._keeping.most_bytes:
            raise ResourceExhausted(
                f"the uploads under way have {claimed:,} bytes together; may have {self._keeping.most_bytes:,} "
                "(--unfinished-upload-bytes): try again when others are finished",
                reason="TOO_MANY_UPLOADS",
            )
        others = [(path, stat) for path, stat in self._waiting() if path.name != key.file_name]
        waiting = sorted((stat.st_mtime, stat.st_size, path) for path, stat in others)
        kept = sum(size for _, size, _ in waiting)
        for number, (_, size, path) in enumerate(waiting):
            if claimed + kept <= self._keeping.most_bytes and len(waiting) - number < MOST_PARTS:
                break
            path.unlink(missing_ok=True)
            kept -= size

    def _waiting(self) -> list[tuple[Path, os.stat_result]]:
        busy = {key.file_name for key in self._at_work}
        found = []
        for path in self._root.iterdir():
            with suppress(FileNotFoundError):
                if path.name not in busy:
                    found.append((path, path.stat()))
        return found


class Upload:
    """A file as it comes in, through one stream."""

    def __init__(self, path: Path, key: UploadKey, clock: Callable[[], float]) -> None:
        self.path = path
        self.key = key
        self._clock = clock
        self._lock = threading.Lock()
        self._heard = clock()
        self._ousted = False
        self._begun = False
        self._unsynced = 0
        self.is_busy = False
        """Whether a dataset is being made of it."""
        self._file: FileIO | None = path.open("r+b" if path.exists() else "x+b", buffering=0)
        self.received = self._file.seek(0, os.SEEK_END)

    @property
    def complete(self) -> bool:
        """Whether as many bytes have arrived as were announced."""
        return self.received == self.key.size_bytes

    def write(self, offset: int, data: bytes) -> None:
        """Takes the next part. The first of a stream may also begin before the end, and replaces the rest.

        Raises InvalidArgument if it isn't the next, or goes beyond the announced size, and Aborted if another stream
        has taken over.
        """
        with self._lock:
            if self._ousted or self._file is None:
                raise Aborted("another call goes on with this upload", reason="UPLOAD_TAKEN_OVER")
            if not 0 <= offset <= self.received or (self._begun and offset != self.received):
                raise InvalidArgument.of("chunk.offset", f"is {offset:,}; the next byte wanted is {self.received:,}")
            if offset + len(data) > self.key.size_bytes:
                raise InvalidArgument.of(
                    "chunk.data",
                    f"goes to byte {offset + len(data):,}; the header announced {self.key.size_bytes:,}",
                )
            if offset < self.received:
                self._file.truncate(offset)
                self._file.seek(offset)
            self.received = offset
            left = memoryview(data)
            while left:
                left = left[self._file.write(left) :]
            self._begun, self._heard = True, self._clock()
            self.received = offset + len(data)
            self._unsynced += len(data)
            if self._unsynced >= SYNC_BYTES:
                self._sync(self._file)

    def give_way(self, silent_since: float) -> bool:
        """Whether another stream may go on instead, since this one was last heard of before that moment."""
        with self._lock:
            if self.is_busy or self._heard > silent_since:
                return False
            self._ousted = True
            self._close()
            return True

    def check(self) -> None:
        """Raises InvalidArgument if bytes are missing or differ from those announced."""
        if not self.complete:
            raise InvalidArgument.of(
                "header.size_bytes",
                f"is {self.key.size_bytes:,}, but the upload ended after {self.received:,} bytes; "
                "send the rest in another call, or the right size",
            )
        with self.path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 != self.key.sha256:
            raise InvalidArgument.of(
                "header.sha256", f"is {self.key.sha256}, but the bytes received have {sha256}; send them all again"
            )

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """While a dataset is made of it, which goes on even if its client goes away, nobody else may write."""
        with self._lock:
            if self._ousted:  # or its client has gone away before this began
                raise Aborted("another call goes on with this upload", reason="UPLOAD_TAKEN_OVER")
            self._close()
            self.is_busy = True
        try:
            yield
        finally:
            self.is_busy = False

    def close(self) -> None:
        """Makes what has arrived durable. Nothing can be written afterwards."""
        with self._lock:
            self._ousted = self._ousted or not self.is_busy
            self._close()

    def _close(self) -> None:
        if self._file is not None:
            with self._file as file:
                self._sync(file)
            self._file = None
            if not self.received:
                self.path.unlink(missing_ok=True)

    def _sync(self, file: FileIO) -> None:
        os.fsync(file.fileno())
        if self._unsynced:
            sync_directory(self.path.parent)
        self._unsynced = 0
