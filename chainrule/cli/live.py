"""The live view of a job, for a terminal: drawn again in place a few times a second."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from chainrule.cli.story import seconds_left
from chainrule.cli.text import beyond_accuracy, number, optional, percent, seconds, state_name
from chainrule.resources import ENDED
from chainrule.v1.training_event_pb2 import TrainingEvent
from chainrule.v1.training_job_pb2 import TrainingJob, TrainingProgress

SILENCE = 5.0  # seconds without news before the view says so

COLOURS = {
    TrainingJob.RUNNING: "green",
    TrainingJob.SUCCEEDED: "bold green",
    TrainingJob.FAILED: "bold red",
    TrainingJob.CANCELLED: "yellow",
    TrainingJob.PAUSED: "yellow",
    TrainingJob.WAITING_FOR_WORKERS: "yellow",
}


class LiveView:
    """A block of lines at the bottom of the terminal; `footer` says what Ctrl-C does."""

    def __init__(self, console: Console, footer: str) -> None:
        self._footer = footer
        self._job = TrainingJob()
        self._news = time.monotonic()
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=8)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, job: TrainingJob, update: TrainingEvent | TrainingProgress | None) -> None:  # noqa: ARG002
        """Shows the job as it now is, from the next refresh on."""
        current = TrainingJob()
        current.CopyFrom(job)  # drawn by another thread, while the caller goes on changing its own
        self._job, self._news = current, time.monotonic()

    def _render(self) -> RenderableType:
        return draw(self._job, self._footer, time.monotonic() - self._news)


def draw(job: TrainingJob, footer: str, silence: float) -> RenderableType:
    """The view of a job of which there has been no news for `silence` seconds."""
    progress = job.progress
    ended = job.state in ENDED
    lines: list[RenderableType] = [_title(job), _bar(progress), _measures(job)]
    if scores := beyond_accuracy(progress.validation_scores):
        lines.append(_cells(scores))
    lines.append(_speed(progress))
    if silence >= SILENCE and job.state == TrainingJob.RUNNING:
        lines.append(Text(f"no news for {silence:.0f} s", "yellow"))
    if not ended:
        lines.append(Text(footer, "dim"))
    return Group(*lines)


def _title(job: TrainingJob) -> Text:
    title = Text.assemble(
        (job.display_name or job.name, "bold"), "  ", (state_name(job), COLOURS.get(job.state, "cyan"))
    )
    return title.append(f"  {job.state_reason}") if job.state_reason else title


def _bar(progress: TrainingProgress) -> Table:
    row = Table.grid(padding=(0, 2), expand=True)
    row.add_column(ratio=1)
    row.add_column(justify="right", no_wrap=True)
    left = seconds_left(progress)
    total = max(1, progress.total_steps)
    row.add_row(
        ProgressBar(total=total, completed=progress.step),
        f"step {progress.step:,}/{progress.total_steps:,}" + (f"  {seconds(left)} left" if left else ""),
    )
    return row


def _measures(job: TrainingJob) -> Table:
    progress = job.progress
    cells = [("epoch", f"{progress.epoch}/{job.spec.epochs}" if job.spec.epochs else f"{progress.epoch}")]
    cells.append(("loss", number(progress.training_loss) if progress.step else "-"))
    cells.append(("validation loss", number(optional(progress, "validation_loss"))))
    if progress.HasField("validation_accuracy"):
        cells.append(("accuracy", percent(progress.validation_accuracy)))
    return _cells(cells)


def _speed(progress: TrainingProgress) -> Table:
    cells = [("samples/s", f"{progress.samples_per_second:,.0f}"), ("workers", f"{progress.workers}")]
    if progress.worker_failures:
        cells.append(("workers lost", f"{progress.worker_failures}"))
    return _cells(cells)


def _cells(cells: list[tuple[str, str]]) -> Table:
    row = Table.grid(padding=(0, 3))
    row.add_row(*(Text.assemble((f"{name} ", "dim"), value) for name, value in cells))
    return row
