"""A metric: declared once, read when a scrape comes, and written in Prometheus's text format.

Written here and not by prometheus_client, which takes four times as long: a hundred jobs have tens of thousands of
series, and whoever makes their text keeps the coordinator's other threads from running.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, Literal, NamedTuple, TypeAlias, TypeVar

Seen = TypeVar("Seen")
"""What a metric is read from."""

Kind: TypeAlias = Literal["gauge", "counter", "histogram"]
Labels: TypeAlias = tuple[str, ...]


class Spread(NamedTuple):
    """A histogram as it stands."""

    counts: Sequence[int]
    """Of each bucket by itself; one more than there are bounds."""
    total: float
    """The sum of everything that was counted."""


Value: TypeAlias = float | Spread
Reading: TypeAlias = Value | Mapping[Labels, Value] | None
"""A value, or one for each value of the labels, or None where there is none now."""


@dataclass(frozen=True)
class Metric(Generic[Seen]):
    """A metric, and how it is read. Its series have the labels of what is seen, and some of their own."""

    kind: Kind
    name: str
    text: str
    read: Callable[[Seen], Reading]
    labels: Labels = ()
    bounds: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, but for the last, which has none."""

    def lines(self, seen: Iterable[tuple[str, Seen]]) -> Iterator[str]:
        """Its part of a scrape: of everything that is seen, with the labels that this has, as text, or ""."""
        yield f"# HELP {self.name} {self.text}\n# TYPE {self.name} {self.kind}\n"
        for outer, thing in seen:
            reading = self.read(thing)
            if isinstance(reading, Mapping):
                for values, value in reading.items():
                    yield self._line(_joined(outer, labels_text(self.labels, values)), value)
            elif reading is not None:
                yield self._line(outer, reading)

    def _line(self, labels: str, value: Value) -> str:
        if not isinstance(value, Spread):
            return f"{self.name}{{{labels}}} {number(value)}\n" if labels else f"{self.name} {number(value)}\n"
        # Prometheus's buckets count everything up to their bound.
        start, count, lines = f"{self.name}_bucket{{{_joined(labels, '')}", 0, []
        for bound, more in zip(self._bounds, value.counts, strict=True):
            count += more
            lines.append(f"{start}{bound}{count}\n")
        own = f"{{{labels}}}" if labels else ""
        lines.append(f"{self.name}_count{own} {count}\n{self.name}_sum{own} {number(value.total)}\n")
        return "".join(lines)

    @cached_property
    def _bounds(self) -> list[str]:
        return [f'le="{bound}"}} ' for bound in (*self.bounds, "+Inf")]


def exposed(metrics: Iterable[Metric[Seen]], seen: Sequence[tuple[str, Seen]]) -> str:
    """The part of a scrape that is some metrics."""
    return "".join(line for metric in metrics for line in metric.lines(seen))


def labels_text(names: Labels, values: Labels) -> str:
    """Labels as they stand between the braces."""
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))


def number(value: float) -> str:
    """A number as Prometheus reads it: all the digits that it takes to get the same one."""
    text = str(value)
    return {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}.get(text, text)


def _joined(outer: str, own: str) -> str:
    return f"{outer},{own}" if outer else own


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
