"""Writes docs/metrics.md: every metric, as its table declares it.

python -m service.metrics.reference            writes it
python -m service.metrics.reference --check    says whether it is as it should be
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.metrics import calls, fleet, jobs, layers, predictions
from service.metrics.exposition import Labels, Metric
from service.metrics.layers import MOST_LAYERS
from service.metrics.process import ProcessMetrics

PAGE = Path("docs/metrics.md")

_BEGIN = """\
# Metrics

Every metric that a coordinator serves at `http://127.0.0.1:9464/metrics` (`--metrics-listen`) in Prometheus's text
format. This page is written by `make docs` from the tables in `service/metrics/`.

All of it is read when a scrape comes, so that training never waits for it. Names end in their unit: `_seconds`,
`_bytes`, `_ratio` for shares and quotients, `_total` for what only grows. What only grows begins anew from 0 when the
coordinator starts again, or a job's trainer. Prometheus itself adds `job` and `instance`, which are about the scrape;
a training job is `job_id`.
"""


@dataclass(frozen=True)
class Family:
    """Metrics that belong together, with the labels that all of them have."""

    title: str
    about: str
    labels: Labels
    metrics: tuple[Metric[Any], ...]


FAMILIES = (
    Family(
        "Jobs",
        "A job has these from its start until `--metrics-retention-seconds` after its end. If that is more than "
        f"{jobs.MOST_JOBS} jobs, those at work come first, then those that came to an end or a halt last. What a job "
        "doesn't have, such as a validation loss before the first epoch, has no series.",
        jobs.JOB,
        jobs.METRICS,
    ),
    Family(
        "Layers",
        f"How the first {MOST_LAYERS} layers of a job's network fared at the newest look. A layer goes by its name, or "
        "else its place, such as `layers.3`; what doesn't apply to it has no series.",
        jobs.JOB,
        layers.METRICS,
    ),
    Family("Service", "Of the coordinator and all its jobs together.", (), fleet.METRICS),
    Family("Predictions", "What models were asked for, all of them together.", (), predictions.METRICS),
    Family(
        "gRPC",
        "The names are those of go-grpc-prometheus, which dashboards know. All methods have them from the start.",
        calls.METHOD,
        calls.METRICS,
    ),
)


def page() -> str:
    """The page as it should be."""
    parts = [_BEGIN, *(part for family in FAMILIES for part in _section(family)), *_process()]
    return "\n".join(parts)


def names() -> set[str]:
    """The names of all metrics that are on it."""
    own = {metric.name for family in FAMILIES for metric in family.metrics}
    return own | {name for name, _, _, _ in _foreign()}


def main() -> None:
    """Writes the page, or with --check exits with 1 if it is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m service.metrics.reference", description="Writes docs/metrics.md.")
    parser.add_argument("--check", action="store_true", help="only say whether it is as it should be")
    if not parser.parse_args().check:
        PAGE.write_text(page())
    elif not PAGE.exists() or PAGE.read_text() != page():
        sys.exit(f"{PAGE} is not what the tables in service/metrics say; run `make docs`")


def _section(family: Family) -> Iterator[str]:
    yield f"## {family.title}\n\n{family.about}\n"
    rows = ((metric.name, metric.kind, (*family.labels, *metric.labels), metric.text) for metric in family.metrics)
    yield _table(rows)
    for metric in family.metrics:
        if metric.bounds:
            yield f"Buckets of `{metric.name}`: {', '.join(f'{bound:g}' for bound in metric.bounds)} seconds.\n"


def _process() -> Iterator[str]:
    yield "## Process\n\nOf the coordinator's own process, by prometheus_client; trainers and workers have theirs.\n"
    yield _table(_foreign())


def _foreign() -> list[tuple[str, str, Labels, str]]:
    """What prometheus_client knows of a process, in the same words."""
    found = []
    for metric in ProcessMetrics().registry.collect():
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        labels = tuple(metric.samples[0].labels) if metric.samples else ()
        found.append((name, metric.type, labels, f"{metric.documentation.rstrip('.')}."))
    return found


def _table(rows: Iterable[tuple[str, str, Labels, str]]) -> str:
    lines = ["| metric | type | labels | unit | what it says |", "| --- | --- | --- | --- | --- |"]
    for name, kind, labels, text in rows:
        marked = ", ".join(f"`{label}`" for label in labels)
        lines.append(f"| `{name}` | {kind} | {marked} | {unit(name)} | {text} |")
    return "\n".join([*lines, ""])


def unit(name: str) -> str:
    """The unit that a name ends in; a number of something where it ends in none."""
    last = name.removesuffix("_total").rpartition("_")[2]
    return last if last in ("seconds", "bytes", "ratio") else ""


if __name__ == "__main__":
    main()
