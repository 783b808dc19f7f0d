"""The data directory: one coordinator's at a time."""

import fcntl
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.files import why_unusable, write_atomically

RESTORING = ".restoring"
"""What a restore writes before any of it counts. Where it is still there, one broke off."""


class DirectoryUnusable(Exception):
    """The data directory can't be had; the message is for whoever asked."""


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Makes the data directory, and keeps other coordinators and restores out of it. Raises DirectoryUnusable."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (directory / "lock").open("a+")
    except OSError as error:
        raise DirectoryUnusable(
            f"can't use the data directory {directory}: {why_unusable(directory, error)}; or name another by --data-dir"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DirectoryUnusable(
                f"the data directory {directory} is in use by another coordinator; "
                "talk to that one by --server, or choose another directory by --data-dir"
            ) from None
        yield


def check_whole(directory: Path) -> None:
    """Raises DirectoryUnusable if a restore into the directory broke off."""
    if (directory / RESTORING).exists():
        raise DirectoryUnusable(
            f"a restore into the data directory {directory} broke off; do it again, by `chainrule admin restore`"
        )


def instance(directory: Path) -> str:
    """A random name for this data directory, which tells its shared memory from that of others."""
    path = directory / "instance"
    if not path.exists():
        write_atomically(path, secrets.token_hex(8).encode())
    return path.read_text()
