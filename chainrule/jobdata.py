"""Sees to it that the server has the dataset a job learns from, before the job is created."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from chainrule.client import Client
from chainrule.errors import AlreadyExists, NotFound, TransferError
from chainrule.jobfile import JobFile
from chainrule.resources import bare_id
from chainrule.samples import SAMPLES, make_sample
from chainrule.transfer import Progress
from chainrule.v1.training_job_pb2 import TrainingJob

MAX_ID = 63  # characters, by the contract


def provide_dataset(
    client: Client, file: JobFile, say: Callable[[str], None], progress: Progress | None = None
) -> TrainingJob:
    """The job of `file`, ready to be created: its dataset is on the server, and the spec names it.

    Uploads the file that the job names, unless the server has it; makes and uploads a sample if the job names one
    that the server does not have. Calls `say` with a sentence about what it is about to do. Raises a ServiceError,
    SampleError, or OSError if the file cannot be read.
    """
    job = TrainingJob()
    job.CopyFrom(file.job)
    if file.dataset_file is not None:
        job.spec.data.dataset = _provide_file(client, file.dataset_file, say, progress)
    elif bare_id(job.spec.data.dataset) in SAMPLES:
        _provide_sample(client, bare_id(job.spec.data.dataset), say, progress)
    return job


def dataset_id(file: Path, sha256: str) -> str:
    """The id under which a file is uploaded: its name and the beginning of its checksum.

    So a changed file becomes another dataset, and an unchanged one is found again.
    """
    stem = re.sub("[^a-z0-9]+", "-", file.stem.lower()).strip("-")
    if not stem[:1].isalpha():
        stem = f"data-{stem}".strip("-")
    return f"{stem[: MAX_ID - 9].rstrip('-')}-{sha256[:8]}"


def _provide_file(client: Client, file: Path, say: Callable[[str], None], progress: Progress | None) -> str:
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    identity = dataset_id(file, sha256)
    try:
        dataset = client.get_dataset(identity)
    except NotFound:
        say(f"uploading {file} as datasets/{identity}")
        try:
            return client.upload_dataset(file, identity, progress).name
        except AlreadyExists:  # someone else was faster with the same file
            dataset = client.get_dataset(identity)
    if dataset.sha256 != sha256:
        raise TransferError(f"{dataset.name} exists with other content than {file}; rename the file and try again")
    return dataset.name


def _provide_sample(client: Client, name: str, say: Callable[[str], None], progress: Progress | None) -> None:
    try:
        client.get_dataset(name)
    except NotFound:
        say(f"the server has no dataset {name} yet; uploading the sample of that name from scikit-learn")
        try:
            client.upload_dataset(make_sample(name), name, progress)
        except AlreadyExists:
            return
