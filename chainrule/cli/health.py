"""How the layers of a job fare and what is wrong with its training: as lines, and as bars for the live view."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from chainrule.cli.text import number, optional, percent
from chainrule.v1.training_health_pb2 import Diagnosis, HealthSampled, LayerHealth

LONGEST_BAR, SHORTEST_BAR = 40, 8  # cells


def trouble_name(trouble: int) -> str:
    """``vanishing gradient``; a number for a trouble of a newer service."""
    values = Diagnosis.DESCRIPTOR.enum_types_by_name["Trouble"].values_by_number
    return values[trouble].name.lower().replace("_", " ") if trouble in values else f"trouble {trouble}"


def headline(diagnosis: Diagnosis) -> str:
    """What is wrong, where, and since when, without how it shows."""
    where = f" in {diagnosis.layer}" if diagnosis.layer else ""
    return f"{trouble_name(diagnosis.trouble)}{where} at step {diagnosis.step:,}"


def diagnosis_lines(diagnoses: Sequence[Diagnosis], width: int) -> list[str]:
    """All that is known of each, in lines of at most `width` characters: what, how it shows, what can be done."""
    lines = []
    for diagnosis in diagnoses:
        lines.append(headline(diagnosis))
        for sentence in (diagnosis.evidence, diagnosis.advice):
            lines += textwrap.wrap(sentence, width, initial_indent="  ", subsequent_indent="  ")
    return lines


def health_lines(look: HealthSampled) -> list[str]:
    """A look at the layers as a table, a line for each."""
    rows = [["layer", "gradient", "parameters", "update", "dead", "saturated", "output"]]
    rows += [
        [
            f"{layer.layer} {layer.kind}",
            number(optional(layer, "gradient_norm")),
            number(optional(layer, "parameter_norm")),
            number(optional(layer, "update_ratio")),
            percent(optional(layer, "dead_ratio")),
            percent(optional(layer, "saturated_ratio")),
            f"{layer.output_mean:.3g} +- {layer.output_deviation:.3g}",
        ]
        for layer in look.layers
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(n) for cell, n in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


@dataclass(frozen=True)
class LayerBars:
    """The lengths of the layers' gradients, a line for each, in at most `height` lines; the bars are logarithmic."""

    look: HealthSampled
    height: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draws them; nothing without any gradient, or without room."""
        layers = [layer for layer in self.look.layers if layer.HasField("gradient_norm") or _suffering(layer)]
        if len(layers) >= self.height:
            layers = [layer for layer in layers if layer.HasField("gradient_norm")] or layers
        if not layers or self.height < 2:
            return
        title = f"gradient by layer, step {self.look.step:,}; in all {number(self.look.gradient_norm)}"
        yield Text(title, "bold", no_wrap=True, overflow="ellipsis")
        shown = _ends(layers, self.height - 1)
        names = [f"{layer.layer} {layer.kind}" if layer else "..." for layer in shown]
        widest = min(max(map(len, names)), options.max_width // 2)
        room = min(LONGEST_BAR, options.max_width - widest - 24)
        least, span = _decades([layer.gradient_norm for layer in layers])
        for name, layer in zip(names, shown, strict=True):
            line = Text(f"{name[:widest]:<{widest}}  ", no_wrap=True, overflow="ellipsis")
            if layer:
                norm = layer.gradient_norm
                line.append(f"{number(optional(layer, 'gradient_norm')):>9}  ")
                if room >= SHORTEST_BAR and norm > 0 and math.isfinite(norm):
                    cells = max(1, round(room * (math.log10(norm) - least) / span))
                    line.append(("#" if options.ascii_only else "█") * cells, "cyan")
                line.append(f"  {_suffering(layer)}".rstrip(), "yellow")
            yield line


def _ends(layers: Sequence[LayerHealth], most: int) -> list[LayerHealth | None]:
    """All layers, or as many of the first and the last as there is room for, around a None."""
    if len(layers) <= most:
        return list(layers)
    first = most // 2
    return [*layers[:first], None, *layers[len(layers) - (most - first - 1) :]] if most > 1 else [layers[0]]


def _decades(norms: Sequence[float]) -> tuple[float, float]:
    """Where bars begin, as a power of ten, and how many decades the longest has."""
    exponents = [math.log10(norm) for norm in norms if norm > 0 and math.isfinite(norm)] or [0.0]
    least = math.ceil(min(exponents)) - 1.0
    return least, max(exponents) - least


def _suffering(layer: LayerHealth) -> str:
    parts = [("dead", optional(layer, "dead_ratio")), ("saturated", optional(layer, "saturated_ratio"))]
    return ", ".join(f"{name} {percent(share)}" for name, share in parts if share)
