"""What people call a job, and the settings of one that can be changed while it is there."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from chainrule.v1 import training_event_pb2 as event_pb
from chainrule.v1 import training_job_pb2 as pb
from chainrule.v1 import training_service_pb2 as service_pb
from service.errors import InvalidArgument, Violation, Violations
from service.jobs.events import SettingsChanged
from service.jobs.job import Job
from service.wire.spec import parse_spec, spec_message

PATH = "training_job"
LONGEST_NAME = 100
MOST_LABELS = 64
LONGEST_LABEL = 63

_KEY = re.compile(rf"[a-z0-9_./-]{{1,{LONGEST_LABEL}}}")

_IN_SPEC = ("priority", "workers", "min_workers", "max_workers")

_IS_SET: Mapping[str, Callable[[pb.TrainingJob], bool]] = {
    "display_name": lambda job: bool(job.display_name),
    "labels": lambda job: bool(job.labels),
    "spec.priority": lambda job: bool(job.spec.priority),
    "spec.workers": lambda job: job.spec.HasField("workers"),
    "spec.min_workers": lambda job: job.spec.HasField("min_workers"),
    "spec.max_workers": lambda job: job.spec.HasField("max_workers"),
    "learning_rate": lambda job: job.HasField("learning_rate"),
}
"""The fields that can be changed, and whether a message has them."""


def check_display_name(name: str, violations: Violations) -> None:
    """Notes a name that is none."""
    if len(name) > LONGEST_NAME or not name.isprintable():
        violations.add(f"{PATH}.display_name", f"must be at most {LONGEST_NAME} printable characters")


def parse_labels(labels: Mapping[str, str], violations: Violations) -> dict[str, str]:
    """The labels in the order of their keys; what is wrong with them is noted."""
    if len(labels) > MOST_LABELS:
        violations.add(f"{PATH}.labels", f"are {len(labels):,}; must be at most {MOST_LABELS}")
        return {}
    for key, value in labels.items():
        if not _KEY.fullmatch(key):
            violations.add(
                f"{PATH}.labels",
                f'have the key {key[:100]!r}; a key has 1 to {LONGEST_LABEL} lower-case letters, digits, "_", ".", "/" '
                'and "-"',
            )
        if len(value) > LONGEST_LABEL or not value.isprintable():
            violations.add(
                f"{PATH}.labels[{key[:LONGEST_LABEL]}]", f"must have at most {LONGEST_LABEL} printable characters"
            )
    return dict(sorted(labels.items()))


def parse_settings(request: service_pb.UpdateTrainingJobRequest, job: Job) -> SettingsChanged:
    """What a request changes of a job: nothing that is so already. Raises InvalidArgument."""
    asked, paths = request.training_job, _paths(request)
    violations = Violations()
    if "display_name" in paths:
        check_display_name(asked.display_name, violations)
    labels = parse_labels(asked.labels, violations) if "labels" in paths else job.labels
    violations.raise_any()
    spec: Any = spec_message(job.spec)
    for name in _IN_SPEC:
        if f"spec.{name}" in paths:
            if _IS_SET[f"spec.{name}"](asked):
                setattr(spec, name, getattr(asked.spec, name))
            else:
                spec.ClearField(name)
    before = job.asked.learning_rate if job.asked else job.spec.learning_rate
    rate = before
    if "learning_rate" in paths:
        rate = asked.learning_rate if asked.HasField("learning_rate") else job.spec.learning_rate
    spec.optimizer.learning_rate = rate
    parsed = _parsed(spec)
    changed: dict[str, Any] = {name: getattr(parsed, name) for name in _IN_SPEC}
    return SettingsChanged(
        display_name=asked.display_name if "display_name" in paths and asked.display_name != job.display_name else None,
        labels=labels if labels != job.labels else None,
        learning_rate=rate if rate != before else None,
        **{name: value for name, value in changed.items() if value != getattr(job.spec, name)},
    )


def settings_message(event: SettingsChanged) -> event_pb.SettingsChanged:
    """The message for what was changed."""
    job, paths = pb.TrainingJob(), []
    if event.display_name is not None:
        job.display_name = event.display_name
        paths.append("display_name")
    if event.labels is not None:
        job.labels.update(event.labels)
        paths.append("labels")
    for name in _IN_SPEC:
        if (value := getattr(event, name)) is not None:
            setattr(job.spec, name, value)
            paths.append(f"spec.{name}")
    if event.learning_rate is not None:
        job.learning_rate = event.learning_rate
        paths.append("learning_rate")
    return event_pb.SettingsChanged(update_mask=FieldMask(paths=paths), training_job=job, changed_by=event.changed_by)


def _paths(request: service_pb.UpdateTrainingJobRequest) -> set[str]:
    """Which fields a request is about. Raises InvalidArgument."""
    paths = set(request.update_mask.paths)
    if not paths:
        return {path for path, is_set in _IS_SET.items() if is_set(request.training_job)}
    if paths == {"*"}:
        return set(_IS_SET)
    if unknown := sorted(paths - set(_IS_SET)):
        raise InvalidArgument.of(
            "update_mask",
            f"has {unknown[0][:100]!r}; what can be changed is {', '.join(_IS_SET)}, or all of them by '*' alone",
        )
    return paths


def _parsed(spec: pb.TrainingJobSpec) -> Any:
    try:
        return parse_spec(spec, f"{PATH}.spec")
    except InvalidArgument as error:
        # Clients know the rate by another name here.
        rate = f"{PATH}.spec.optimizer.learning_rate"
        found = [
            Violation(f"{PATH}.learning_rate", each.description) if each.field == rate else each
            for each in error.violations
        ]
        raise InvalidArgument(found, error.reason) from None
