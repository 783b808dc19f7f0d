"""How the cost of a step grows with workers, parameters and shards, with nothing to compute."""

from pathlib import Path

from benchmarks.exchange_cost import Cost, Setting, measure
from benchmarks.figure import Series, figure

FIGURE = Path(__file__).parent.parent / "docs" / "scaling.svg"
PARAMETERS = (10_000, 100_000, 1_000_000, 10_000_000)
WORKERS = (1, 2, 4, 8)
SHARDS = (2, 8, 32, 64)
USUAL = 100_000
"""Parameters where something else is varied."""


def main(*, quick: bool, write: bool) -> None:
    """Prints the table, and draws the figure if asked to."""
    panels = []
    for title, label, values in (
        ("parameters (2 workers, 2 shards)", "parameters", PARAMETERS[:3] if quick else PARAMETERS),
        ("workers (8 shards, 100 k parameters)", "workers", WORKERS[:3] if quick else WORKERS),
        ("shards (2 workers, 100 k parameters)", "shards", SHARDS[:3] if quick else SHARDS),
    ):
        series = []
        for nodes in (0, 2):
            points = []
            for value in values:
                setting = _setting(label, value, nodes, quick)
                cost = measure(setting)
                points.append((float(value), cost.total * 1e3))
                _print(setting, cost)
            series.append(Series("Ray objects, 2 nodes" if nodes else "shared memory", points))
        panels.append((title, series))
    if write:
        FIGURE.parent.mkdir(exist_ok=True)
        FIGURE.write_text(figure(panels))


def _setting(label: str, value: int, nodes: int, quick: bool) -> Setting:
    parameters = value if label == "parameters" else USUAL
    workers = value if label == "workers" else 2
    shards = {"shards": value, "workers": 8}.get(label, 2)
    steps = (100 if nodes else 1000) if parameters < 1_000_000 else 30 if nodes else 100
    return Setting(parameters, shards, min(workers, shards), nodes, steps // 4 if quick else steps)


def _print(setting: Setting, cost: Cost) -> None:
    print(
        f"{setting.parameters:>10,} parameters  {setting.workers} workers  {setting.shards:>2} shards  "
        f"{cost.exchange:<22}  gather {cost.gather * 1e3:8.3f} ms  with the average {cost.total * 1e3:8.3f} ms",
        flush=True,
    )
