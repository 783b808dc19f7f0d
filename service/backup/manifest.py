"""What a backup consists of: every file with its size and its SHA-256, in a file beside them."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

from pydantic import TypeAdapter, ValidationError

from service.files import write_atomically

NAME = "manifest.json"
FORMAT = 1
STORE = "jobs.sqlite"
CHUNK_BYTES = 1 << 20


class BackupError(Exception):
    """It can't be done, or something is damaged; the message is for whoever asked."""


@dataclass(frozen=True)
class Entry:
    """A file, as it was when the backup was made."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """All files of a backup, by their paths below it, with slashes."""

    made: datetime
    chainrule: str
    """The version of the service that made it."""
    files: dict[str, Entry]
    format: int = FORMAT

    @property
    def size_bytes(self) -> int:
        """Of all files together."""
        return sum(entry.size_bytes for entry in self.files.values())


_MANIFEST = TypeAdapter(Manifest)


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Writes it. Raises OSError."""
    write_atomically(directory / NAME, _MANIFEST.dump_json(manifest, indent=1))


def read_manifest(directory: Path) -> Manifest:
    """Reads it. Raises BackupError if there is none, or it can't be one of ours."""
    try:
        manifest = _MANIFEST.validate_json((directory / NAME).read_bytes())
    except FileNotFoundError:
        raise BackupError(f"{directory} is no backup: it has no {NAME}") from None
    except (OSError, ValidationError) as error:
        raise BackupError(f"{directory / NAME} can't be read: it is damaged, or not by this service") from error
    if manifest.format != FORMAT:
        raise BackupError(f"{directory} has the format {manifest.format}; this version reads {FORMAT}")
    for path in manifest.files:
        parts = PurePosixPath(path).parts
        # Whoever wrote it must not be able to have files written elsewhere.
        if not parts or path != "/".join(parts) or ".." in parts or parts[0].startswith((".", "/")):
            raise BackupError(f"{directory / NAME} names a file that no backup has: {path!r}")
    if STORE not in manifest.files:
        raise BackupError(f"{directory / NAME} lacks {STORE}, the jobs")
    return manifest


def entry_of(path: Path) -> Entry:
    """A file as it is now. Raises OSError."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return Entry(file.tell(), sha256)


def copied(source: Path, target: Path) -> Entry:
    """Copies a file, and tells what was copied. Raises OSError."""
    sha256, size = hashlib.sha256(), 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as original, target.open("xb") as copy:
        while part := original.read(CHUNK_BYTES):
            sha256.update(part)
            size += copy.write(part)
    return Entry(size, sha256.hexdigest())
