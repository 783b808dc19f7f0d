"""Gives a backup back, as a data directory of its own."""

import shutil
from pathlib import Path

from service.backup.manifest import STORE, BackupError, Manifest, copied, read_manifest
from service.directory import RESTORING, DirectoryUnusable, locked
from service.files import sync_directory, sync_tree

NOTHING = {"lock", "lost+found", RESTORING}
"""What an empty data directory may have in it."""


def restore(backup: Path, directory: Path) -> Manifest:
    """Copies a backup into an empty data directory, each file checked as it is copied.

    Nothing of it counts before everything is there. What an earlier restore left that broke off is removed first.
    Raises BackupError or OSError, and then the directory is empty.
    """
    manifest = read_manifest(backup)
    try:
        with locked(directory):
            _clear(directory, manifest)
            part = directory / RESTORING
            part.mkdir()
            try:
                _copy(backup, part, manifest)
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
            # The jobs last. Until `part` is gone no coordinator starts here.
            for path in sorted(part.iterdir(), key=lambda path: path.name == STORE):
                path.rename(directory / path.name)
            sync_directory(directory)
            part.rmdir()
            sync_directory(directory)
    except DirectoryUnusable as error:
        raise BackupError(str(error)) from error
    return manifest


def _clear(directory: Path, manifest: Manifest) -> None:
    """Removes what a restore left that broke off. Raises BackupError if there is anything else."""
    there = {path.name for path in directory.iterdir()} - NOTHING
    if (directory / RESTORING).exists():
        there -= {path.partition("/")[0] for path in manifest.files}
    if there:
        raise BackupError(
            f"{directory} isn't empty: it has {', '.join(sorted(there)[:3])}; a backup is restored into a new "
            "directory: name one by --data-dir"
        )
    for path in directory.iterdir():
        if path.name in NOTHING - {RESTORING}:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _copy(backup: Path, part: Path, manifest: Manifest) -> None:
    for name, entry in manifest.files.items():
        source = backup / name
        if source.is_symlink() or not source.is_file():
            raise BackupError(f"{source} is missing; nothing was restored")
        if (found := copied(source, part / name)) != entry:
            raise BackupError(
                f"{source} is damaged: it has {found.size_bytes:,} bytes with the SHA-256 {found.sha256}; the "
                f"manifest says {entry.size_bytes:,} with {entry.sha256}. Nothing was restored"
            )
    sync_tree(part)
