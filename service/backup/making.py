"""Makes a backup of a data directory, also while a coordinator is at work there.

Everything is copied. Links to what never changes would take neither time nor room, but whatever damages a file would
then damage it in the backup, too.

What is newer than something that tells of it would be wrong; the other way round is what a crash leaves too, and what
the service makes good when it starts. Hence the order: checkpoints, then the jobs, which may tell of more steps than
those have, then models and datasets, of which there may be more than the jobs tell of.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from service.backup.manifest import STORE, BackupError, Manifest, copied, entry_of, write_manifest
from service.files import sync_directory, sync_tree
from service.jobs.store import StoreError, copy_store, job_ids

UNFINISHED = ".unfinished-backup"
CHECKPOINTS = ("step-*.safetensors", "best-*.safetensors")
"""In this order: a step's checkpoint is never newer than the best one that is found after it."""
STARTS = ("initial-*.safetensors", "prepared/*", "model.json")
"""What a job needs to begin, and what makes models of its checkpoints: written before those, and never changed."""


def back_up(source: Path, target: Path) -> Manifest:
    """Makes a backup of the data directory `source` in a new directory, which appears when it is complete.

    Raises BackupError or OSError, and then there is none.
    """
    if not (source / STORE).is_file():
        raise BackupError(f"{source} is no data directory: it has no {STORE}; name another by --data-dir")
    target = target.absolute()
    if target.is_relative_to(source.absolute()):
        raise BackupError(f"{target} is in the data directory itself; choose a place elsewhere")
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise BackupError(f"{target} is there already; a backup is a new directory: choose another name")
    with _unfinished(target) as directory:
        _collect(source, directory)
        files = {
            path.relative_to(directory).as_posix(): entry_of(path)
            for path in sorted(directory.rglob("*"))
            if path.is_file()
        }
        manifest = Manifest(datetime.now(UTC), version("chainrule"), files)
        write_manifest(directory, manifest)
    return manifest


def _collect(source: Path, directory: Path) -> None:
    checkpoints = source / "checkpoints"
    seen = {path.name for path in _folders(checkpoints)}
    for job in seen:
        _take(checkpoints / job, directory / "checkpoints" / job, *CHECKPOINTS, *STARTS)
    try:
        copy_store(source / STORE, directory / STORE)
        known = job_ids(directory / STORE)
    except StoreError as error:
        raise BackupError(str(error)) from error
    for job in known - seen:
        # Of jobs that were created meanwhile only what they begin with: their checkpoints are newer than the jobs.
        _take(checkpoints / job, directory / "checkpoints" / job, *STARTS)
    for job in seen - known:  # deleted meanwhile, or never created
        shutil.rmtree(directory / "checkpoints" / job, ignore_errors=True)
    for name in ("aliases.json", *(path.name for path in source.glob("audit.log*"))):
        with suppress(FileNotFoundError):
            copied(source / name, directory / name)
    for kind in ("models", "datasets"):
        for path in _folders(source / kind):
            _take(path, directory / kind / path.name, "*", whole=True)


def _folders(parent: Path) -> list[Path]:
    """Those in a directory that have their names for good."""
    return [path for path in parent.glob("*") if path.is_dir() and not path.name.startswith(".")]


def _take(source: Path, target: Path, *patterns: str, whole: bool = False) -> None:
    """Copies the files of some patterns, each as they are when its turn comes.

    One that goes while that is done was replaced by others, which are looked for; or it goes with its directory, of
    which nothing is taken then if that has to be `whole`.
    """
    for pattern in patterns:
        while True:
            try:
                for path in sorted(source.glob(pattern)):
                    # Not is_file: of one that has gone meanwhile that would be False, and nobody would know.
                    if not (path.is_dir() or path.name.startswith(".")):
                        _copy(path, target / path.relative_to(source))
                break
            except FileNotFoundError:
                if whole or not source.exists():
                    shutil.rmtree(target, ignore_errors=True)
                    return


def _copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)  # from the time before another file went
    copied(source, target)


@contextmanager
def _unfinished(target: Path) -> Iterator[Path]:
    """A directory that becomes `target` when the context is left without an error, and else vanishes.

    What was left beside it by backups that were killed goes first; those under way are held by a lock.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".*{UNFINISHED}"):
        with suppress(BlockingIOError, FileNotFoundError), _held(left):
            shutil.rmtree(left)
    directory = target.with_name(f".{target.name}{UNFINISHED}")
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        raise BackupError(f"another backup to {target} is under way") from None
    with _held(directory):
        try:
            yield directory
            sync_tree(directory)
            directory.rename(target)
            sync_directory(target.parent)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise


@contextmanager
def _held(directory: Path) -> Iterator[None]:
    """Keeps a directory from those who look for left-overs. Raises BlockingIOError if another has it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
