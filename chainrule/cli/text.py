"""How the command writes values down: numbers, times, states; and messages as JSON."""

import json
from collections.abc import Mapping
from datetime import UTC
from typing import Any

import click
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from chainrule.v1.training_event_pb2 import StateChanged
from chainrule.v1.training_job_pb2 import TrainingJob


def as_dict(message: Message) -> dict[str, Any]:
    """A message in protobuf's JSON mapping, with the field names of the protos."""
    return MessageToDict(message, preserving_proto_field_name=True)


def print_json(content: Mapping[str, Any]) -> None:
    """One JSON object on a line of its own, sent off at once: the reader may be a program that waits for it."""
    click.echo(json.dumps(content, ensure_ascii=False))


def state_name(job: TrainingJob | StateChanged) -> str:
    """``RUNNING``; a number for a state of a newer service."""
    values = TrainingJob.DESCRIPTOR.enum_types_by_name["State"].values_by_number
    return values[job.state].name if job.state in values else str(int(job.state))


def labels(job: TrainingJob) -> str:
    """``team=blue x=1``."""
    return " ".join(f"{key}={value}" for key, value in sorted(job.labels.items()))


def optional(message: Message, field: str) -> float | None:
    """An optional number of a message, None if it is unset."""
    return float(getattr(message, field)) if message.HasField(field) else None


def percent(share: float | None) -> str:
    """``97.2 %`` for 0.972; a dash for None."""
    return "-" if share is None else f"{100 * share:.1f} %"


def score(name: str, value: float) -> str:
    """``97.2 %`` for an accuracy, else four digits that count."""
    return percent(value) if name.endswith("accuracy") else number(value)


def beyond_accuracy(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """The other scores, each as its name for people and its value, in the order of their names."""
    return [(name.replace("_", " "), score(name, scores[name])) for name in sorted(scores) if name != "accuracy"]


def number(value: float | None) -> str:
    """Four digits that count; a dash for None."""
    return "-" if value is None else f"{value:.4g}"


def seconds(value: float) -> str:
    """``4.2 s``, ``3 min 20 s`` or ``2 h 5 min``."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def size(count: int) -> str:
    """Bytes in units of 1,024."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"


def local_time(time: Timestamp) -> str:
    """To the minute, in the user's time zone; a dash if it is unset."""
    return f"{time.ToDatetime(UTC).astimezone():%Y-%m-%d %H:%M}" if time.seconds else "-"


def moment(value: float) -> str:
    """A short time in the unit that suits it: ``1.9 ms``, ``350 us``, ``4.2 s``."""
    if value >= 1:
        return seconds(value)
    return f"{1e3 * value:.3g} ms" if value >= 1e-3 else f"{1e6 * value:.3g} us"
