"""The views of a job for everything that is not a terminal: lines for a log, and JSON for a program."""

from collections.abc import Iterator
from types import TracebackType
from typing import Self

import click

from chainrule.cli.health import headline, trouble_name
from chainrule.cli.story import Story
from chainrule.cli.text import (
    as_dict,
    beyond_accuracy,
    labels,
    number,
    optional,
    percent,
    print_json,
    seconds,
    state_name,
)
from chainrule.v1.training_event_pb2 import EpochCompleted, SettingsChanged, TrainingEvent
from chainrule.v1.training_job_pb2 import TrainingJob, TrainingProgress


class PlainView:
    """A line for every change of state, every epoch, every worker that is lost or comes back, and all that is wrong."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, story: Story, update: TrainingEvent | TrainingProgress | None) -> None:
        """Prints what an event has changed."""
        if isinstance(update, TrainingEvent) and (line := describe(story.job, update)):
            click.echo(line)


class JsonView(PlainView):
    """Every event as a JSON object on a line."""

    def show(self, story: Story, update: TrainingEvent | TrainingProgress | None) -> None:  # noqa: ARG002
        """Prints an event as ``{"event": {...}}``."""
        if isinstance(update, TrainingEvent):
            print_json({"event": as_dict(update)})


def describe(job: TrainingJob, event: TrainingEvent) -> str:
    """An event of a job in a line; empty for one that is of no interest to people, such as a look at the layers."""
    match event.WhichOneof("kind"):
        case "state_changed":
            reason = event.state_changed.reason
            return f"{job.name} {state_name(event.state_changed)}" + (f": {reason}" if reason else "")
        case "epoch_completed":
            return _epoch(job, event.epoch_completed)
        case "worker_lost":
            lost = event.worker_lost
            return f"worker {lost.worker} lost at step {lost.step}" + (f": {lost.reason}" if lost.reason else "")
        case "worker_joined":
            return f"worker {event.worker_joined.worker} joined before step {event.worker_joined.step}"
        case "rolled_back":
            back = event.rolled_back
            return f"rolled back to step {back.step}, learning rate now {back.learning_rate:g}: {back.reason}"
        case "settings_changed":
            return f"changed: {', '.join(_settings(event.settings_changed))}"
        case "learning_rate_changed":
            changed = event.learning_rate_changed
            return f"learning rate {changed.learning_rate:g} from step {changed.step:,} on"
        case "diagnosed":
            found = event.diagnosed.diagnosis
            return f"{headline(found)}: {found.evidence}. {found.advice}"
        case "recovered":
            return f"no more {trouble_name(event.recovered.trouble)} after step {event.recovered.step:,}"
        case _:
            return ""


def _settings(changed: SettingsChanged) -> Iterator[str]:
    """Each field that was changed, with its new value."""
    job = changed.training_job
    for path in changed.update_mask.paths:
        if path == "labels":
            yield f"labels {labels(job) or 'none'}"
        elif path == "learning_rate":
            yield f"learning rate {job.learning_rate:g}, which holds from one of the next steps on"
        else:
            of, name = (job.spec, path.removeprefix("spec.")) if path.startswith("spec.") else (job, path)
            yield f"{name.replace('_', ' ')} {getattr(of, name) or 'none'}"


def _epoch(job: TrainingJob, epoch: EpochCompleted) -> str:
    parts = [f"loss {number(epoch.training_loss)}"]
    if epoch.HasField("validation_loss"):
        parts.append(f"validation loss {number(epoch.validation_loss)}")
    if epoch.HasField("validation_accuracy"):
        parts.append(f"validation accuracy {percent(optional(epoch, 'validation_accuracy'))}")
    parts += [f"{name} {value}" for name, value in beyond_accuracy(epoch.validation_scores)]
    total = f"/{job.spec.epochs}" if job.spec.epochs else ""
    return f"epoch {epoch.epoch}{total}: {', '.join(parts)} ({seconds(epoch.duration_seconds)})"
