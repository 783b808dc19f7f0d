"""The live view of a job, for a terminal: drawn again in place a few times a second."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from chainrule.cli.anatomy import StepBar
from chainrule.cli.curve import LossCurves
from chainrule.cli.health import LayerBars, headline
from chainrule.cli.story import Story, seconds_left
from chainrule.cli.text import beyond_accuracy, number, optional, percent, seconds, state_name
from chainrule.resources import ENDED
from chainrule.v1.training_event_pb2 import TrainingEvent
from chainrule.v1.training_health_pb2 import Diagnosis
from chainrule.v1.training_job_pb2 import TrainingJob, TrainingProgress

SILENCE = 5.0  # seconds without news before the view says so
FEWEST_CURVE_LINES, MOST_CURVE_LINES = 6, 16
FEWEST_LAYER_LINES = 4

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
        self._story = Story(TrainingJob())
        self._news = time.monotonic()
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=8)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, story: Story, update: TrainingEvent | TrainingProgress | None) -> None:  # noqa: ARG002
        """Shows the job as it now is, from the next refresh on."""
        # Drawn by another thread, while the caller goes on changing its own.
        self._story, self._news = story.copy(), time.monotonic()

    def _render(self) -> RenderableType:
        return StoryView(self._story, self._footer, time.monotonic() - self._news)


@dataclass(frozen=True)
class StoryView:
    """A job of which there has been no news for `silence` seconds, in no more lines than the terminal has."""

    story: Story
    footer: str
    silence: float

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draws what matters first; then, as far as there is room, curves, what is wrong, the step and the layers."""
        job, story = self.story.job, self.story
        head, foot = self._head(), self._foot()
        room = console.height - 1 - len(console.render_lines(Group(*head, *foot), options))
        layers = len(story.look.layers) + 1 if story.look else 0
        spare = room - FEWEST_CURVE_LINES - 2 - min(layers, FEWEST_LAYER_LINES)
        findings = _findings(job.diagnoses, spare, console, options)
        room -= len(findings)
        bar = [StepBar(job.progress.phase_seconds)] if job.progress.phase_seconds and room > FEWEST_CURVE_LINES else []
        room -= 2 * len(bar)
        height = min(max(room - layers, room * 2 // 5, FEWEST_CURVE_LINES), MOST_CURVE_LINES)
        curves = [("training", "cyan", story.training.points), ("validation", "yellow", story.validation.points)]
        yield from head
        if room >= FEWEST_CURVE_LINES:
            yield LossCurves(curves, height)
        yield from bar
        if story.look:
            yield LayerBars(story.look, room - height)
        yield from findings
        yield from foot

    def _head(self) -> list[RenderableType]:
        job = self.story.job
        lines: list[RenderableType] = [_title(job), _bar(job.progress), _measures(job)]
        if scores := beyond_accuracy(job.progress.validation_scores):
            lines.append(_cells(scores))
        return [*lines, _speed(job.progress)]

    def _foot(self) -> list[RenderableType]:
        job = self.story.job
        lines: list[RenderableType] = []
        if self.silence >= SILENCE and job.state == TrainingJob.RUNNING:
            lines.append(Text(f"no news for {self.silence:.0f} s", "yellow"))
        if job.state not in ENDED:
            lines.append(Text(self.footer, "dim"))
        return lines


def _findings(
    diagnoses: Sequence[Diagnosis], room: int, console: Console, options: ConsoleOptions
) -> list[RenderableType]:
    """What is wrong, a renderable for each line: with evidence and advice as far as there is room, else without."""
    lines: list[Text] = []
    for whole in range(len(diagnoses), -1, -1):
        lines = []
        for index, found in enumerate(diagnoses):
            text = Text.assemble((f"! {headline(found)}: ", "bold yellow"), f"{found.evidence}. ", found.advice)
            if index >= whole:
                text.truncate(options.max_width, overflow="ellipsis")
            lines += text.wrap(console, options.max_width)
        if len(lines) <= room:
            break
    return [*lines]


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


def _measures(job: TrainingJob) -> Text:
    progress = job.progress
    cells = [("epoch", f"{progress.epoch}/{job.spec.epochs}" if job.spec.epochs else f"{progress.epoch}")]
    cells.append(("loss", number(progress.training_loss) if progress.step else "-"))
    cells.append(("validation loss", number(optional(progress, "validation_loss"))))
    if progress.HasField("validation_accuracy"):
        cells.append(("accuracy", percent(progress.validation_accuracy)))
    return _cells(cells)


def _speed(progress: TrainingProgress) -> Text:
    cells = [("samples/s", f"{progress.samples_per_second:,.0f}"), ("workers", f"{progress.workers}")]
    if progress.worker_failures:
        cells.append(("workers lost", f"{progress.worker_failures}"))
    return _cells(cells)


def _cells(cells: list[tuple[str, str]]) -> Text:
    return Text("   ").join(Text.assemble((f"{name} ", "dim"), value) for name, value in cells)
