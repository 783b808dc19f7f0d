"""What is read from files that may change while the service runs: tokens, certificates."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

T = TypeVar("T")

Stamps = tuple[tuple[int, int, int] | None, ...]

_log = structlog.get_logger(__name__)


class Watched(Generic[T]):
    """A value that files hold, as of now. May be asked by any thread, for what a look at the files' dates costs."""

    def __init__(self, paths: Sequence[Path], read: Callable[[], T]) -> None:
        """Reads them. Raises what `read` raises: OSError, or ValueError for what can't be used."""
        self._paths = tuple(paths)
        self._read = read
        self._lock = threading.Lock()
        self._stamps = self._stamp()
        self._value = read()

    def value(self) -> T:
        """What the files hold; while they can't be used, what they held before, and the log says why."""
        stamps = self._stamp()
        if stamps != self._stamps:
            with self._lock:
                if stamps != self._stamps:
                    self._renew(stamps)
        return self._value

    def _renew(self, stamps: Stamps) -> None:
        names = [str(path) for path in self._paths]
        try:
            self._value = self._read()
            _log.info("read anew", files=names)
        except (OSError, ValueError) as error:
            _log.error("what was read before stays in force", files=names, reason=str(error))
        # Taken before reading: what changes meanwhile is read once more.
        self._stamps = stamps

    def _stamp(self) -> Stamps:
        return tuple(_stamp(path) for path in self._paths)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Changes with the file; a new file in its place counts as well."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
