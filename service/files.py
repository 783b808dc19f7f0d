"""Files and directories that appear whole or not at all, and stay."""

import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file so that after a crash at any moment it has its old content or its new one. Raises OSError."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A temporary directory that becomes `path` when the context is left without an error, and else vanishes.

    Raises FileExistsError if `path` exists by then. Names that begin with a dot are left-overs of a crash.
    """
    temporary = Path(mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        sync_tree(temporary)
        try:
            temporary.rename(path)
        except OSError as error:
            # A directory that has something in it is never replaced, whoever was faster.
            if path.exists():
                raise FileExistsError(path) from error
            raise
        sync_directory(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_directory(path: Path) -> None:
    """Removes a directory so that a crash leaves no half of it under its name."""
    doomed = path.with_name(f".{path.name}.deleted")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    sync_directory(path.parent)
    shutil.rmtree(doomed, ignore_errors=True)


def sweep(parent: Path) -> None:
    """Makes a directory for such directories, and removes what a crash left half done in it."""
    parent.mkdir(parents=True, exist_ok=True)
    for path in parent.glob(".*"):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def sync_tree(path: Path) -> None:
    """Makes all that is below a directory durable."""
    for directory, _, names in os.walk(path):
        for name in (*names, "."):
            sync_directory(Path(directory, name))


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable, or the content of a file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def allow_files(most: int) -> None:
    """Has this process open up to `most` files and connections, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def why_unusable(path: Path, error: OSError) -> str:
    """Why something can't be read or written: for who isn't allowed to, also whose it is and how to change that."""
    why = error.strerror or str(error)
    if isinstance(error, PermissionError):
        named = Path(error.filename or path)
        theirs = named if named.exists() else path
        with suppress(OSError):
            owner, user = theirs.stat().st_uid, os.getuid()
            if owner != user:
                why += f": {theirs} belongs to user {owner}, and this runs as user {user} "
                why += f"(as root: chown -R {user} {path})"
    return why
