"""Job files: a training job written down in YAML or JSON, as protobuf's JSON mapping of TrainingJobSpec.

Two things go beyond the mapping: optional ``display_name`` and ``labels`` at the top, and ``data.dataset``, which may
name an npz or csv file next to the job file; whoever runs the job uploads it first (see `chainrule.jobdata`).
"""

import json
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format

from chainrule import jsonmapping
from chainrule.errors import JobFileError, Violation
from chainrule.resources import DATASETS, full_name
from chainrule.v1.network_pb2 import Network
from chainrule.v1.training_job_pb2 import TrainingJob, TrainingJobSpec

MAX_BYTES = 1024 * 1024


@dataclass(frozen=True)
class JobFile:
    """A job as its file describes it."""

    path: Path
    job: TrainingJob
    """Its display name, labels and spec, complete but for the dataset if that is a file."""
    dataset_file: Path | None
    """The file that the job learns from, if it names one rather than a dataset of the server."""


def read_job_file(path: Path) -> JobFile:
    """Reads a ``.yaml``, ``.yml`` or ``.json`` file. Raises JobFileError, which names every wrong field."""
    content = _parse(path)
    if not isinstance(content, dict):
        raise JobFileError(f"{path}: must be a mapping with the fields data, network, loss and so on")
    content = dict(content)
    called = {name: content.pop(name) for name in ("display_name", "displayName", "labels") if name in content}
    wrong = [
        *jsonmapping.violations(content, TrainingJobSpec.DESCRIPTOR),
        *jsonmapping.violations(called, TrainingJob.DESCRIPTOR),
    ]
    if wrong:
        raise JobFileError(_headline(path), wrong)
    try:
        job = json_format.ParseDict({**called, "spec": content}, TrainingJob())
    except (json_format.ParseError, ValueError, TypeError) as error:  # what the walk before did not foresee
        raise JobFileError(f"{path}: {error}") from error
    return JobFile(path, job, _resolve_dataset(path, job.spec))


def job_file_text(job: TrainingJob) -> str:
    """The job file that describes a job: what `read_job_file` makes the same job of."""
    described = TrainingJob(display_name=job.display_name, labels=job.labels)
    fields = [json_format.MessageToDict(part, preserving_proto_field_name=True) for part in (described, job.spec)]
    text: str = yaml.safe_dump(fields[0] | fields[1], sort_keys=False, allow_unicode=True)
    return text


def read_network_file(path: Path) -> Network:
    """A network in a file of its own, such as ``layers: [...]``; or that of a job file. Raises JobFileError."""
    content = _parse(path)
    if isinstance(content, dict) and "network" in content:
        content = content["network"]
    headline = f"{path} has no network that can be read"
    if wrong := list(jsonmapping.violations(content, Network.DESCRIPTOR)):
        raise JobFileError(headline, wrong)
    try:
        return json_format.ParseDict(content, Network())
    except (json_format.ParseError, ValueError, TypeError) as error:  # what the walk before did not foresee
        raise JobFileError(f"{headline}: {error}") from error


def _resolve_dataset(path: Path, spec: TrainingJobSpec) -> Path | None:
    """The file that the spec names as its dataset; if it names a dataset instead, completes that name in place.

    A job that acts in an environment has none.
    """
    named = spec.data.dataset
    if spec.HasField("environment"):
        return None
    if not named:
        raise JobFileError(
            _headline(path),
            [Violation("data.dataset", "is missing; give the name of a dataset, or the path of an .npz or .csv file")],
        )
    if not named.endswith((".npz", ".csv", ".csv.gz")):
        spec.data.dataset = full_name(DATASETS, named)
        return None
    file = path.parent / Path(named).expanduser()
    if not file.is_file():
        raise JobFileError(_headline(path), [Violation("data.dataset", f"there is no file {file}")])
    return file


def _headline(path: Path) -> str:
    return f"{path} is not a job that can run"


def _parse(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise JobFileError(f"{path}: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise JobFileError(f"{path}: a job file has at most 1 MiB; data belongs into a file of its own")
    try:
        text = data.decode("utf-8")
        return json.loads(text) if path.suffix == ".json" else yaml.load(text, Loader=_Loader)  # noqa: S506 - safe
    except UnicodeDecodeError as error:
        raise JobFileError(f"{path}: is not a text file (UTF-8)") from error
    except json.JSONDecodeError as error:
        raise JobFileError(f"{path}, line {error.lineno}: {error.msg}") from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise JobFileError(f"{path}{line}: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise JobFileError(f"{path}: cannot be parsed: {error}") from error


class _Loader(yaml.SafeLoader):
    """yaml.safe_load's loader, except that a key written twice is a mistake rather than the last one's victory."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is not None and key != "<<" and key in seen:
                raise yaml.MarkedYAMLError(problem=f'has "{key}" twice', problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)
