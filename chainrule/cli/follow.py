"""Follows a job to its end in the view that fits the output, or only up to now."""

from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console

from chainrule.cli.live import LiveView
from chainrule.cli.plain import JsonView, PlainView
from chainrule.cli.story import Story
from chainrule.client import Client
from chainrule.v1.training_event_pb2 import TrainingEvent
from chainrule.v1.training_job_pb2 import TrainingJob, TrainingProgress


class View(Protocol):
    """Shows a job while it goes on; on the screen from the beginning of its ``with`` block to the end."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, story: Story, update: TrainingEvent | TrainingProgress | None) -> None:
        """Called with the story as it is after `update`; at the beginning, with None."""


def view_for(as_json: bool, footer: str) -> View:
    """JSON if asked for, the live view on a terminal, else plain lines. `footer` says what Ctrl-C does."""
    if as_json:
        return JsonView()
    console = Console()
    return LiveView(console, footer) if console.is_terminal else PlainView()


def follow(client: Client, job: TrainingJob, view: View, patience: float = 60.0) -> TrainingJob:
    """Watches a job from its first event to its last and returns it as it ended. Raises as `Client.watch` does."""
    known = TrainingJob()
    # What the events are about to tell again is left out, or the view would begin with the end.
    known.name, known.display_name = job.name, job.display_name
    known.spec.CopyFrom(job.spec)
    known.state = TrainingJob.QUEUED
    story = Story(known)
    with view:
        view.show(story, None)
        for update in client.watch(job.name, patience=patience):
            story.take(update)
            view.show(story, update)
    return client.get_job(job.name)


def events_so_far(client: Client, name: str) -> Iterator[TrainingEvent]:
    """What has happened to a job up to now, in order. Raises as `Client.watch` does."""
    last = client.get_job(name).last_event
    for update in client.watch(name) if last else ():
        if isinstance(update, TrainingEvent):
            yield update
            if update.number >= last:
                return
