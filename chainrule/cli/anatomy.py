"""The anatomy of a step: where its seconds go, as a bar of its phases."""

from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from chainrule.cli.text import moment

STYLES = {
    "split": "white",
    "wait": "red",
    "forward": "cyan",
    "backward": "blue",
    "gather": "magenta",
    "average": "yellow",
    "optimizer": "green",
    "validate": "bright_black",
    "checkpoint": "bright_white",
}
"""The phases in the order in which they follow each other."""

FILLS, ASCII_FILLS = "█▓▒", "#=-"
"""Neighbours differ by more than their colour."""


@dataclass(frozen=True)
class StepBar:
    """A bar as wide as there is room, and below it a line that names its parts, the largest first."""

    phase_seconds: Mapping[str, float]
    """As TrainingProgress has them. A phase that nobody here knows comes after the others."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draws it; nothing if no step was measured."""
        order = [*STYLES, *sorted(self.phase_seconds.keys() - STYLES.keys())]
        phases = [(name, self.phase_seconds[name]) for name in order if self.phase_seconds.get(name, 0) > 0]
        total = sum(seconds for _, seconds in phases)
        if not total > 0:
            return
        head = Text.assemble(("step ", "bold"), f"{moment(total)}  ", no_wrap=True)
        width = options.max_width - len(head)
        fills = ASCII_FILLS if options.ascii_only else FILLS
        drawn = {name: (fills[index % len(fills)], STYLES.get(name, "")) for index, (name, _) in enumerate(phases)}
        until, end = 0.0, 0
        for name, seconds in phases:
            until += seconds
            begin, end = end, round(until / total * width)
            head.append(drawn[name][0] * (end - begin), drawn[name][1])
        yield head
        legend = Text(" " * (len("step ")), no_wrap=True, overflow="ellipsis")
        for name, seconds in sorted(phases, key=lambda phase: -phase[1]):
            fill, style = drawn[name]
            legend.append(f"{fill} ", style).append(f"{name} {100 * seconds / total:.0f} %  ")
        yield legend
