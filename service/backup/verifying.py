"""Looks at everything that a data directory or a backup keeps, and tells what is damaged or missing."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from service.backup.manifest import NAME, STORE, BackupError, entry_of, read_manifest
from service.data.datasets import Dataset, read_description
from service.jobs.job import Job
from service.jobs.store import JobStore, StoreError, copy_store
from service.models.registry import FILE, read_model
from service.training.checkpoints import is_whole
from service.training.preparing import FOLDER
from service.wire.job import spec_text


class Findings:
    """What was looked at, and what is wrong with it."""

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()
        """How many jobs, datasets, models, checkpoints and files of a manifest."""
        self.problems: list[str] = []
        """A sentence each."""

    def add(self, kind: str, path: Path, problems: Iterator[str]) -> None:
        """Counts what lies at a path, with what is wrong with it. If it was deleted meanwhile, nothing is."""
        self.counted[kind] += 1
        try:
            self.problems.extend(problems)
        except FileNotFoundError as error:
            if path.exists():
                self.problems.append(f"{error.filename} is missing")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self.problems.append(f"{path} can't be read: {type(error).__name__}: {error}")


def verify(directory: Path) -> Findings:
    """Looks at a backup, or at a data directory, also one that is in use. Raises BackupError if it is neither."""
    findings = Findings()
    if (directory / NAME).exists():
        _check_manifest(directory, findings)
    if not (directory / STORE).is_file():
        raise BackupError(f"{directory} is neither a data directory nor a backup: it has no {STORE}")
    jobs = _check_jobs(directory / STORE, findings)
    for path in _folders(directory / "datasets"):
        findings.add("datasets", path, _wrong_with_dataset(path))
    for path in _folders(directory / "models"):
        findings.add("models", path, _wrong_with_model(path))
    for path in sorted((directory / "checkpoints").glob("*/*.safetensors")):
        findings.add("checkpoints", path, _wrong_with_checkpoint(path))
    for job in jobs:
        findings.problems.extend(_missing(job, directory))
    aliases = directory / "aliases.json"
    if aliases.exists():
        findings.add("files of aliases", aliases, _wrong_with_aliases(aliases))
    return findings


def _check_manifest(directory: Path, findings: Findings) -> None:
    manifest = read_manifest(directory)
    for name, entry in manifest.files.items():
        path = directory / name
        findings.counted["files"] += 1
        if path.is_symlink() or not path.is_file():
            findings.problems.append(f"{name} is missing")
        elif (found := entry_of(path)) != entry:
            findings.problems.append(
                f"{name} isn't what was backed up: it has {found.size_bytes:,} bytes with the SHA-256 {found.sha256}, "
                f"and had {entry.size_bytes:,} with {entry.sha256}"
            )
    there = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}
    findings.problems.extend(f"{name} isn't part of the backup" for name in sorted(there - {NAME, *manifest.files}))


def _check_jobs(path: Path, findings: Findings) -> list[Job]:
    """Counts the jobs, and returns them if all of them can be replayed."""
    with TemporaryDirectory() as workspace:
        copy = Path(workspace, STORE)  # which may be brought up to date
        try:
            copy_store(path, copy)
            with closing(JobStore(copy, spec_text())) as store:
                problems = list(store.problems())
                findings.problems.extend(f"{STORE}: {problem}" for problem in problems)
                jobs = [] if problems else list(store.load())
        except StoreError as error:
            findings.problems.append(f"{STORE}: {error}")
            return []
    findings.counted["jobs"] += len(jobs)
    return jobs


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.glob("*") if path.is_dir() and not path.name.startswith("."))


def _wrong_with_dataset(directory: Path) -> Iterator[str]:
    dataset = read_description(directory)
    for number, column in enumerate(dataset.columns):
        path = directory / f"{number}.npy"
        if column.sha256 and (sha256 := entry_of(path).sha256) != column.sha256:
            yield f"{path} is damaged: its SHA-256 is {sha256}; must be {column.sha256}"
        else:
            yield from _wrong_with_array(path, dataset, number)


def _wrong_with_array(path: Path, dataset: Dataset, number: int) -> Iterator[str]:
    """Of a column whose checksum nobody took at least the form."""
    column = dataset.columns[number]
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    shape = (dataset.rows, *column.row_shape)
    if array.shape != shape or array.dtype != np.dtype(column.dtype):
        yield f"{path} holds {array.dtype} of shape {array.shape}; must hold {column.dtype} of {shape}"


def _wrong_with_model(directory: Path) -> Iterator[str]:
    model = read_model(directory)
    if (sha256 := entry_of(directory / FILE).sha256) != model.sha256:
        yield f"{directory / FILE} is damaged: its SHA-256 is {sha256}; must be {model.sha256}"


def _wrong_with_checkpoint(path: Path) -> Iterator[str]:
    if not is_whole(path, path.read_bytes()):
        yield f"{path} is damaged: its content doesn't have the checksum in its name"


def _wrong_with_aliases(path: Path) -> Iterator[str]:
    aliases = json.loads(path.read_text())
    if not isinstance(aliases, dict) or not all(isinstance(of, str) for of in aliases.values()):
        yield f"{path} must be a JSON object of names"


def _missing(job: Job, directory: Path) -> Iterator[str]:
    """What a job that hasn't ended needs, and is not there."""
    if job.has_ended:
        return
    if job.spec.environment is None and not (directory / "datasets" / job.spec.dataset).is_dir():
        yield f"{job.name} hasn't ended, and its dataset, datasets/{job.spec.dataset}, is missing"
    if job.spec.preparation is not None and not (directory / "checkpoints" / job.id / FOLDER).is_dir():
        yield f"{job.name} hasn't ended, and what it learns from, checkpoints/{job.id}/{FOLDER}, is missing"
    if job.spec.initial_model and not any((directory / "checkpoints" / job.id).glob("*.safetensors")):
        yield f"{job.name} hasn't ended, and the parameters that it starts with are missing"
