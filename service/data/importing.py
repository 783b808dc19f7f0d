"""Files that a coordinator fetches itself: from folders of its machine, or from object stores.

Only what lies below one of the roots that it was started with is fetched, and never anything else: for a folder, where
the opened file really lies is asked of the kernel, after all links; for an object store, the address must begin with
the root, and may have nothing in it that a server or a library would take as a way out.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import structlog

from service.data.reading import BYTES_AT_ONCE
from service.errors import FailedPrecondition, InvalidArgument, ResourceExhausted

LONGEST_URI = 2_000
FIELD = "uri"

STORES = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oci", "oss", "b2", "memory")
"""Where a name leads to what it says. Web servers send on to elsewhere, file servers have links."""

_log = structlog.get_logger(__name__)


class Imports:
    """The places that files may be imported from."""

    def __init__(self, roots: Sequence[str], most_bytes: int) -> None:
        """Roots are folders, or addresses such as "s3://bucket/prefix". Raises ValueError for any other."""
        self._folders = [Path(root.removeprefix("file://")).expanduser() for root in roots if _scheme(root) == "file"]
        self._prefixes = [root.rstrip("/") + "/" for root in roots if _scheme(root) != "file"]
        for folder in self._folders:
            if not folder.is_dir():
                raise ValueError(f"--import-root {folder}: there is no such folder")
        for prefix in self._prefixes:
            if problem := _way_out(prefix):
                raise ValueError(f"--import-root {prefix}: {problem}")
        self._most_bytes = most_bytes

    def fetch(self, uri: str, target: Path) -> tuple[str, int]:
        """Copies a file to `target`; returns its SHA-256 and size.

        Raises FailedPrecondition if nothing can be imported here, or a store can't be read, InvalidArgument if the
        address is not below a root or there is no file, ResourceExhausted if it is too large.
        """
        if not self._folders and not self._prefixes:
            raise FailedPrecondition(
                "this coordinator imports from nowhere; start it with --import-root, "
                "a folder or an address such as s3://bucket/prefix, or upload the file",
                reason="IMPORT_NOT_CONFIGURED",
            )
        if not uri or len(uri) > LONGEST_URI or not uri.isprintable():
            raise _refuse(uri, f"must be an address of up to {LONGEST_URI:,} printable characters")
        if problem := _way_out(uri):
            raise _refuse(uri, problem)
        with self._open(uri) as file:
            return self._copy(uri, file, target)

    @contextmanager
    def _open(self, uri: str) -> Iterator[IO[bytes]]:
        if _scheme(uri) == "file":
            with self._open_file(uri) as file:
                yield file
            return
        if not any(uri.startswith(prefix) for prefix in self._prefixes):
            raise self._outside(uri)
        try:
            file = _fsspec().open(uri, "rb").open()
        except FileNotFoundError:
            raise _refuse(uri, "there is no such file") from None
        except ImportError:
            raise FailedPrecondition(
                f"this coordinator can't read {_scheme(uri)}://; install fsspec's implementation of it there",
                reason="FORMAT_NOT_INSTALLED",
            ) from None
        except PermissionError:
            raise _refuse(uri, "the coordinator may not read this file") from None
        except FailedPrecondition:
            raise
        except Exception as error:
            raise _unread(uri, error) from None
        with file:
            yield file

    @contextmanager
    def _open_file(self, uri: str) -> Iterator[IO[bytes]]:
        parts = urlsplit(uri)
        path = unquote(parts.path)
        if parts.netloc not in ("", "localhost") or not path.startswith("/") or "\0" in path:
            raise _refuse(uri, "must be file:/// and the full path of a file on the coordinator's machine")
        outside = self._outside(uri)
        # What is outside is refused before it is looked at, or the answers would tell which files there are.
        if not self._is_below(Path(os.path.realpath(path))):
            raise outside
        try:
            # Without waiting: opening a pipe would wait for its other end.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise _refuse(uri, "there is no such file") from None
        except OSError:
            raise _refuse(uri, "the coordinator can't open this file") from None
        try:
            # Again for what was opened: a link may have changed meanwhile.
            if not self._is_below(Path(f"/proc/self/fd/{descriptor}").readlink()):
                raise outside
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _refuse(uri, "is not a file")
            with os.fdopen(os.dup(descriptor), "rb") as file:
                yield file
        finally:
            os.close(descriptor)

    def _is_below(self, path: Path) -> bool:
        return any(path.is_relative_to(os.path.realpath(folder)) for folder in self._folders)

    def _copy(self, uri: str, source: IO[bytes], target: Path) -> tuple[str, int]:
        digest, size = hashlib.sha256(), 0
        with target.open("wb") as file:
            while data := _read(uri, source):
                size += len(data)
                if size > self._most_bytes:
                    raise ResourceExhausted(
                        f"{uri} has more than {self._most_bytes:,} bytes, which is the most that a dataset may have "
                        "(--max-dataset-bytes)",
                        reason="DATASET_TOO_LARGE",
                    )
                digest.update(data)
                file.write(data)
        if not size:
            raise _refuse(uri, "the file is empty")
        return digest.hexdigest(), size

    def _outside(self, uri: str) -> InvalidArgument:
        roots = [*(f"file://{folder}/" for folder in self._folders), *self._prefixes]
        return _refuse(uri, f"must be below a place that the coordinator imports from: {', '.join(roots)[:500]}")


def _scheme(address: str) -> str:
    """Of an address, in lower case; a plain path is a file's."""
    scheme, found, _ = address.partition("://")
    return scheme.lower() if found else "file"


def _way_out(address: str) -> str:
    """What in an address could lead elsewhere than it seems; "" if nothing does."""
    scheme, found, rest = address.partition("://")
    if not found or not (scheme.isascii() and scheme.replace("+", "").replace("-", "").isalnum()):
        return "must begin with a scheme, such as file:// or s3://"
    if _scheme(address) not in ("file", *STORES):
        return (
            f"{scheme[:20]}:// can't be imported from; give a folder, or the address of an object store, such as s3://"
        )
    if any(sign in rest for sign in ("?", "#", "::", "\\", "*")):
        return "must have none of ? # :: \\ * in it; write a ? or # of a file's name as %3F or %23"
    segments = [unquote(unquote(segment)) for segment in rest.split("/")]
    if any(segment in (".", "..") or "/" in segment for segment in segments):
        return "must have no . or .. between slashes"
    return ""


def _fsspec() -> Any:
    try:
        import fsspec
    except ImportError:
        raise FailedPrecondition(
            "this coordinator can import from folders only; for object stores, install there "
            "pip install 'chainrule[server,remote]'",
            reason="FORMAT_NOT_INSTALLED",
        ) from None
    return fsspec


def _read(uri: str, source: IO[bytes]) -> bytes:
    try:
        return source.read(BYTES_AT_ONCE)
    except Exception as error:
        raise _unread(uri, error) from None


def _unread(uri: str, error: Exception) -> FailedPrecondition:
    """For whatever a store's own library raises when that is away, or wants other credentials."""
    _log.warning("a file to import could not be read", uri=uri, exc_info=error)
    return FailedPrecondition(
        f"the coordinator couldn't read {uri[:200]!r}, and its log says why; try again, or have whoever runs it look",
        reason="IMPORT_UNREADABLE",
    )


def _refuse(uri: str, problem: str) -> InvalidArgument:
    return InvalidArgument.of(FIELD, f"is {uri[:200]!r}; {problem}", reason="BAD_URI")
