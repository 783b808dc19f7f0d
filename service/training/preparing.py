"""What a job learns from, where that is made of a dataset's columns first.

It is written when the job is created, beside the job's checkpoints, and goes with them: so a job that was acknowledged
always learns from the very same numbers, and whoever computes knows nothing of how they came about.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from service.data.datasets import Dataset, Datasets, read_description
from service.data.preparation import fit
from service.data.prepared import Roles, write_prepared
from service.errors import InvalidArgument, NotFound, Violations
from service.files import new_directory
from service.jobs.jobs import Jobs
from service.jobs.spec import JobSpec
from service.training.task import check_weights, dataset_of, usable_column
from worker.arrays import Rows

FOLDER = "prepared"


def read_prepared(spec: JobSpec, datasets: Datasets, directory: Path) -> tuple[Dataset, Path]:
    """What a job learns from, and where its columns lie; `directory` is the job's own. Raises NotFound, OSError."""
    if spec.preparation is None:
        return dataset_of(spec, datasets), datasets.root / spec.dataset
    return read_description(directory / FOLDER), directory / FOLDER


@dataclass(frozen=True)
class Preparing:
    """Prepares what jobs learn from."""

    datasets: Datasets
    jobs: Jobs
    directory: Path
    """Below which each job has its own."""

    @contextmanager
    def prepared(self, spec: JobSpec, job_id: str, path: str) -> Iterator[tuple[Dataset, Path]]:
        """What a job is to learn from, and where its columns lie.

        What was written goes again if there is no such job when the context is left. Raises InvalidArgument, naming
        fields below `path`, NotFound, or ResourceExhausted.
        """
        dataset = dataset_of(spec, self.datasets)
        if spec.preparation is None:
            yield dataset, self.datasets.root / spec.dataset
            return
        own = self.directory / job_id
        try:
            own.mkdir(parents=True, exist_ok=True)
            try:
                made = self._write(spec, dataset, own, job_id, path)
            except FileNotFoundError:
                raise NotFound(dataset.name) from None  # deleted meanwhile
            yield made, own / FOLDER
        finally:
            if not self.jobs.has(job_id):
                shutil.rmtree(own, ignore_errors=True)

    def sweep(self) -> None:
        """Removes what was written for jobs that a crash kept from being created, and for those that have ended."""
        for path in self.directory.glob(f"*/*{FOLDER}*"):
            job_id = path.parent.name
            if not self.jobs.has(job_id):
                shutil.rmtree(path.parent, ignore_errors=True)
            elif self.jobs.get(job_id).has_ended:
                shutil.rmtree(path, ignore_errors=True)

    def _write(self, spec: JobSpec, dataset: Dataset, own: Path, job_id: str, path: str) -> Dataset:
        assert spec.preparation is not None  # noqa: S101 - else there is nothing to write
        data, violations = f"{path}.data", Violations()
        roles = Roles(spec.input_column, spec.target_column, spec.weight_column)
        if not spec.preparation.features:
            usable_column(dataset, roles.inputs, f"{data}.input_column", violations, spec.precision.dtype)
        if spec.preparation.target is None:
            usable_column(dataset, roles.targets, f"{data}.target_column", violations, spec.precision.dtype)
        if roles.weights:
            check_weights(dataset, roles.weights, f"{data}.weight_column", violations, spec.precision.dtype)
        violations.raise_any()
        source = self.datasets.root / dataset.id
        rows, windows = _trained_on(spec, dataset, data)
        names = roles.targets, roles.weights
        fitted = fit(
            spec.preparation, dataset, lambda number: self.datasets.array(dataset.id, number), rows, names, data
        )
        with new_directory(own / FOLDER) as directory:
            made = replace(dataset, id=f"{dataset.id}/{FOLDER}/{job_id}")
            dtype = spec.precision.dtype
            return write_prepared(fitted, made, source, directory, roles, dtype, self._check_size, data, windows)

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self.datasets.most_bytes:
            raise InvalidArgument.of(
                "training_job.spec.data.features",
                f"make {size_bytes:,} bytes of this dataset; must make at most {self.datasets.most_bytes:,} "
                "(--max-dataset-bytes)",
                reason="DATASET_TOO_LARGE",
            )


def _trained_on(spec: JobSpec, dataset: Dataset, path: str) -> tuple[Rows, tuple[range, ...] | None]:
    """The rows of the dataset that may be learned from; and, if there are such, the windows that are used.

    Raises InvalidArgument.
    """
    windows = spec.preparation.windows if spec.preparation else None
    if windows is None:
        return spec.shards_of(dataset.rows).training_rows, None
    used = windows.usable(dataset.rows, holds_out=spec.validation_fraction > 0)
    if used < 1:
        least = windows.span + (windows.targets - 1 if spec.validation_fraction else 0)
        raise InvalidArgument.of(
            f"{path}.windows",
            f"and their targets take {least:,} rows at least, so that some can be learned from; {dataset.name} has "
            f"{dataset.rows:,}",
        )
    held_out = spec.shards_of(used).validation_count
    parts = windows.parts(dataset.rows, used - held_out, held_out)
    return np.array(windows.covered(parts[0])), parts
