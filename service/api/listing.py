"""Which jobs a list has, and in which order: a subset of AIP-160's filters, and of AIP-132's orders.

https://google.aip.dev/160, https://google.aip.dev/132
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chainrule.v1.training_service_pb2 import ListTrainingJobsRequest
from service.errors import InvalidArgument
from service.jobs.events import STATES
from service.jobs.job import Job

LONGEST = 1_000
"""Characters of a filter, or of an order."""

_LABELS = "labels."
_FIELDS: dict[str, Callable[[Job], str]] = {
    "state": lambda job: job.state.kind,
    "display_name": lambda job: job.display_name,
    "created_by": lambda job: job.created_by,
}
_ORDERS: dict[str, Callable[[Job], int]] = {
    "create_time": lambda job: _microseconds(job),
    "priority": lambda job: job.spec.priority,
}
_NEWEST_FIRST = (("create_time", True),)

_TOKEN = re.compile(r'\s*(?:(?P<word>[\w./-]+)|(?P<operator>!=|=)|"(?P<quoted>(?:[^"\\]|\\["\\])*)")')

Place = tuple[int | str, ...]
"""Where in the order a job is."""


@dataclass(frozen=True)
class Comparison:
    """`field` = `value`, or its opposite."""

    field: str
    value: str
    equal: bool

    def holds(self, job: Job) -> bool:
        """Whether it is so of a job."""
        if self.field.startswith(_LABELS):
            found = job.labels.get(self.field.removeprefix(_LABELS), "")
        else:
            found = _FIELDS[self.field](job)
        return (found == self.value) == self.equal


@dataclass(frozen=True)
class Listing:
    """What a request asks for."""

    comparisons: tuple[Comparison, ...] = ()
    order: tuple[tuple[str, bool], ...] = _NEWEST_FIRST
    """Fields, and whether the largest comes first."""

    def has(self, job: Job) -> bool:
        """Whether a job is to be in the list."""
        return all(comparison.holds(job) for comparison in self.comparisons)

    def place(self, job: Job) -> Place:
        """What jobs are sorted by; no two have the same."""
        values = [-_ORDERS[field](job) if descends else _ORDERS[field](job) for field, descends in self.order]
        return (*values, -_microseconds(job), job.id)

    @property
    def text(self) -> str:
        """Tells one list from another."""
        return repr(self)


def parse_listing(request: ListTrainingJobsRequest) -> Listing:
    """What a request asks for. Raises InvalidArgument, which says where in the text something is wrong."""
    for field, text in (("filter", request.filter), ("order_by", request.order_by)):
        if len(text) > LONGEST:
            raise InvalidArgument.of(field, f"has {len(text):,} characters; must have at most {LONGEST:,}")
    return Listing(_comparisons(request.filter), _order(request.order_by))


def _comparisons(text: str) -> tuple[Comparison, ...]:
    found: list[Comparison] = []
    tokens = _tokens(text)
    place = 0
    while len(tokens) > place + 1:
        if found:
            at, kind, word = tokens[place]
            if (kind, word) != ("word", "AND"):
                raise _wrong(at, word, "AND between two comparisons")
            place += 1
        found.append(_comparison(tokens[place : place + 3], tokens[-1]))
        place += 3
    return tuple(found)


def _comparison(tokens: Sequence[tuple[int, str, str]], end: tuple[int, str, str]) -> Comparison:
    """Three tokens as a comparison; those that are missing are the end of the text."""
    (field_at, field_kind, field), (at, kind, operator), (value_at, value_kind, value) = [*tokens, end, end, end][:3]
    if field_kind != "word" or not (field in _FIELDS or field.startswith(_LABELS)):
        raise _wrong(field_at, field, f"a field: {', '.join(_FIELDS)} or labels.<key>")
    if kind != "operator":
        raise _wrong(at, operator, "= or !=")
    if value_kind not in ("word", "quoted"):
        raise _wrong(value_at, value, "a value, in double quotes if it has other than letters, digits, _ . / and -")
    if field == "state" and value not in STATES:
        raise _wrong(value_at, value, f"a state: {', '.join(STATES)}")
    return Comparison(field, value, operator == "=")


def _tokens(text: str) -> list[tuple[int, str, str]]:
    """Where each word of a filter begins, counted from 1, its kind, and it; the last is the end."""
    found, at = [], 0
    end = len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            begin = at + len(text[at:]) - len(text[at:].lstrip())
            raise _wrong(begin + 1, text[begin], "a field, = or !=, a value, AND")
        word = match[match.lastgroup]
        if match.lastgroup == "quoted":
            word = re.sub(r"\\(.)", r"\1", word)
        found.append((match.start(match.lastgroup) + 1, match.lastgroup, word))
        at = match.end()
    return [*found, (end + 1, "end", "")]


def _wrong(position: int, found: str, right: str) -> InvalidArgument:
    what = f"has {found[:50]!r}" if found else "ends"
    return InvalidArgument.of("filter", f"{what} at position {position}, where there must be {right}")


def _order(text: str) -> tuple[tuple[str, bool], ...]:
    if not text.strip():
        return _NEWEST_FIRST
    found: dict[str, bool] = {}
    for part in text.split(","):
        field, *direction = part.split() or [""]
        if field not in _ORDERS or direction not in ([], ["asc"], ["desc"]):
            raise InvalidArgument.of(
                "order_by",
                f"has {part.strip()[:50]!r}; must be {' or '.join(_ORDERS)}, each with asc or desc if wanted",
            )
        if field in found:
            raise InvalidArgument.of("order_by", f"has {field} twice")
        found[field] = direction == ["desc"]
    return tuple(found.items())


def _microseconds(job: Job) -> int:
    return round(job.created.timestamp() * 1e6)
