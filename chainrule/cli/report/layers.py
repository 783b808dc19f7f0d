"""How the layers fared: their gradients as a map of layers by looks, and the newest look as a table."""

import math
from collections.abc import Sequence
from xml.etree.ElementTree import Element

from chainrule.cli.curve import Scale, scale_of
from chainrule.cli.report.chart import thinned
from chainrule.cli.report.element import element, scrolling, table
from chainrule.cli.text import number, optional, percent
from chainrule.v1.training_health_pb2 import HealthSampled, LayerHealth

MOST_LAYERS, MOST_LOOKS = 64, 150
SHADES = 10
"""Colours of the map, from dark to light: those of viridis, which every kind of colour vision can tell apart."""

LABELS, CELLS_WIDTH, ROW, FOOT = 190, 560, 18, 62


def gradient_map(looks: Sequence[HealthSampled]) -> Element | None:
    """A row for each layer with a gradient, a column for each look; None if there is none."""
    looks = thinned(looks, MOST_LOOKS)
    norms = [{_name(layer): layer.gradient_norm for layer in _with_gradient(look)} for look in looks]
    names = list(dict.fromkeys(name for row in norms for name in row))[:MOST_LAYERS]
    if not names:
        return None
    positive = [norm for row in norms for norm in row.values() if norm > 0 and math.isfinite(norm)] or [1.0]
    scale = Scale(min(positive), max(positive), logarithmic=scale_of(positive).logarithmic)
    bottom = len(names) * ROW
    size = {"viewBox": f"0 0 {LABELS + CELLS_WIDTH + 10} {bottom + FOOT}", "role": "img", "class": "chart map"}
    title = f"Length of each layer's gradient in {len(looks)} looks, {number(min(positive))} to {number(max(positive))}"
    drawing = element("svg", size, element("title", {}, title))
    width = CELLS_WIDTH / len(looks)
    for index, name in enumerate(names):
        label = {"x": LABELS - 8, "y": ROW / 2, "dy": "0.32em", "text-anchor": "end"}
        text = element("text", label, _short(name), element("title", {}, name))
        row = element("g", {"transform": f"translate(0 {index * ROW})"}, text)
        for column, (look, by_name) in enumerate(zip(looks, norms, strict=True)):
            if name in by_name:
                row.append(_cell(LABELS + column * width, width, name, look.step, by_name[name], scale))
        drawing.append(row)
    drawing.extend(_steps(looks, width, bottom))
    drawing.extend(_key(scale, bottom + 34))
    note = " (the colours are logarithmic)" if scale.logarithmic else ""
    caption = f"Length of the mean gradient by layer, first layer above, over the looks so far{note}"
    return element("figure", {}, element("figcaption", {}, caption), scrolling("Gradient by layer", drawing))


def layer_table(looks: Sequence[HealthSampled]) -> Element | None:
    """The newest look, and the most of what layers suffer from in any; None without a look."""
    if not looks:
        return None
    newest = looks[-1]
    layers = newest.layers[:MOST_LAYERS]
    dead, saturated = _worst(looks, "dead_ratio"), _worst(looks, "saturated_ratio")
    rows = [
        [
            _name(layer),
            number(optional(layer, "gradient_norm")),
            number(optional(layer, "parameter_norm")),
            number(optional(layer, "update_ratio")),
            _share(layer, "dead_ratio", dead),
            _share(layer, "saturated_ratio", saturated),
            f"{layer.output_mean:.3g} ± {layer.output_deviation:.3g}",
        ]
        for layer in layers
    ]
    left = f"; {len(newest.layers) - len(layers)} more layers are left out" if len(newest.layers) > len(layers) else ""
    columns = ["Layer", "Gradient", "Parameters", "Update ratio", "Dead units", "Saturated", "Output"]
    return table(f"The layers at step {newest.step:,}{left}", columns, rows, range(1, 7))


def confusion_table(counts: Sequence[Sequence[float]], names: Sequence[str]) -> Element:
    """A row for each true class, a column for each it was taken for, shaded by the share of the row."""
    corner = element("th", {"scope": "col"}, "true class")
    head = element("tr", {}, corner, *(element("th", {"scope": "col", "class": "number"}, name) for name in names))
    body = []
    for name, row in zip(names, counts, strict=True):
        total = sum(row) or 1.0
        cells = [
            element("td", {"class": f"number share{math.ceil(5 * count / total)}"}, f"{count:.10g}" if count else "·")
            for count in row
        ]
        body.append(element("tr", {}, element("th", {"scope": "row"}, name), *cells))
    caption = "Held-out rows: a row for each true class, a column for each it was taken for"
    made = element("table", {"class": "confusion"}, element("caption", {}, caption))
    made.extend([element("thead", {}, head), element("tbody", {}, *body)])
    return scrolling("Confusion", made)


def _with_gradient(look: HealthSampled) -> list[LayerHealth]:
    return [layer for layer in look.layers if layer.HasField("gradient_norm")]


def _name(layer: LayerHealth) -> str:
    return f"{layer.layer} {layer.kind}"


def _short(name: str) -> str:
    return name if len(name) <= 26 else f"{name[:25]}…"


def _worst(looks: Sequence[HealthSampled], field: str) -> dict[str, float]:
    """The greatest share of each layer in any look."""
    worst: dict[str, float] = {}
    for look in looks:
        for layer in look.layers:
            share = optional(layer, field)
            if share is not None:
                worst[layer.layer] = max(share, worst.get(layer.layer, 0.0))
    return worst


def _share(layer: LayerHealth, field: str, worst: dict[str, float]) -> str:
    share = optional(layer, field)
    if share is None:
        return "-"
    most = worst[layer.layer]
    return percent(share) + (f" (most {percent(most)})" if most > share else "")


def _cell(x: float, width: float, name: str, step: int, norm: float, scale: Scale) -> Element:
    shade = (
        "bad" if not math.isfinite(norm) else "zero" if norm <= 0 else f"h{min(SHADES - 1, int(SHADES * scale(norm)))}"
    )
    place = {"x": f"{x:.1f}", "width": f"{width + 0.2:.1f}", "height": ROW - 1, "class": shade}
    return element("rect", place, element("title", {}, f"{name}, step {step:,}: {number(norm)}"))


def _steps(looks: Sequence[HealthSampled], width: float, bottom: float) -> list[Element]:
    labels = [element("text", {"x": LABELS - 8, "y": bottom + 16, "text-anchor": "end"}, "step")]
    for column, look in thinned(list(enumerate(looks)), 8):
        anchor = "start" if column == 0 else "end" if column == len(looks) - 1 else "middle"
        x = LABELS + width * {"start": column, "middle": column + 0.5, "end": column + 1}[anchor]
        labels.append(element("text", {"x": f"{x:.1f}", "y": bottom + 16, "text-anchor": anchor}, f"{look.step:,}"))
    return labels


def _key(scale: Scale, top: float) -> list[Element]:
    width = 24
    swatches = [
        element("rect", {"x": LABELS + index * width, "y": top, "width": width, "height": 12, "class": f"h{index}"})
        for index in range(SHADES)
    ]
    labels = [(0.0, "start", 0), (0.5, "middle", SHADES / 2), (1.0, "end", SHADES)]
    return swatches + [
        element("text", {"x": LABELS + place * width, "y": top + 25, "text-anchor": anchor}, number(scale.at(share)))
        for share, anchor, place in labels
    ]
