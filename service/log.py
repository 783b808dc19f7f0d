"""The service's log: a line of JSON an entry, with what is known of where it came from: a call's id, a job's.

A trainer's process keeps what it logs until the coordinator, which asks what is new anyway, takes it along: so there is
one log. What nobody could take any more is in Ray's files.
"""

import json
import logging
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import structlog

MOST_ENTRIES = 1_000
"""That a trainer keeps; of more, the newest."""

LONGEST_TEXT = 8_000
"""Characters of an entry of a trainer. A longer one is cut off."""

Entry = Mapping[str, Any]

_log = structlog.get_logger(__name__)


def configure_log(to: TextIO = sys.stderr, *more: structlog.typing.Processor) -> None:
    """Has everything that this process logs written there. `more` sees each entry before that."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            *more,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(to),
    )


class Collected:
    """What a process logs, until somebody takes it."""

    def __init__(self, to: TextIO = sys.stderr) -> None:
        """From now on; it is written there as well."""
        self._entries: deque[str] = deque(maxlen=MOST_ENTRIES)
        configure_log(to, self._keep)

    def take(self) -> tuple[Entry, ...]:
        """What was logged since the last time: plain data."""
        taken = []
        while self._entries:
            taken.append(json.loads(self._entries.popleft()))
        return tuple(taken)

    def _keep(self, _logger: object, _method: str, entry: structlog.typing.EventDict) -> structlog.typing.EventDict:
        cut = {key: value[:LONGEST_TEXT] if isinstance(value, str) else value for key, value in entry.items()}
        self._entries.append(json.dumps(cut, default=repr))
        return entry


def log_again(entries: Sequence[Entry]) -> None:
    """Writes down what another process logged, with what is known here of where it came from."""
    for entry in entries:
        known = {key: value for key, value in entry.items() if key not in ("event", "level", "timestamp")}
        level = logging.getLevelNamesMapping().get(str(entry.get("level", "")).upper(), logging.INFO)
        _log.log(level, str(entry.get("event", "")), **known)
