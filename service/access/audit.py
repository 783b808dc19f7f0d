"""The audit log: who did what, a line of JSON for every call that may change something.

It has names and outcomes, never contents or tokens. Refused calls of nobody in particular aren't in it: they did
nothing, and a flood of them would push out what matters.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

import structlog

LARGEST_FILE = 10 << 20
FILES_KEPT = 9
"""Beside the one that is written."""

LONGEST_TEXT = 200

_log = structlog.get_logger(__name__)


class Audit:
    """The log, in a file that gives way to a new one when it is full."""

    def __init__(self, handler: logging.Handler) -> None:
        # Of its own, not one of logging's registry: two services in one process would write each other's.
        logger = logging.Logger("audit")
        logger.addHandler(handler)
        self._logger = structlog.wrap_logger(
            logger,
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.TimeStamper(fmt="iso", key="time"),
                structlog.processors.EventRenamer("method"),
                structlog.processors.JSONRenderer(),
            ],
            wrapper_class=structlog.BoundLogger,
            cache_logger_on_first_use=True,
        )

    def note(self, principal: str, method: str, resource: str, outcome: str, peer: str) -> None:
        """Writes a line. One that can't be written is an error in the service's own log, and holds up nobody."""
        self._logger.info(
            method,
            principal=principal,
            resource=resource[:LONGEST_TEXT],
            outcome=outcome,
            peer=peer[:LONGEST_TEXT],
        )


@contextmanager
def audit_log(path: Path, largest_file: int = LARGEST_FILE) -> Iterator[Audit]:
    """The audit log in a file, open while the context is. Raises OSError."""
    handler = _File(path, maxBytes=largest_file, backupCount=FILES_KEPT, encoding="utf-8")
    try:
        yield Audit(handler)
    finally:
        handler.close()


class _File(RotatingFileHandler):
    """Files that only their owner reads, opened for each line: a call may end after the service has closed the log."""

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        if self.stream is not None:
            self.stream.close()
            self.stream = None  # which has it opened again

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return os.fdopen(descriptor, "a", encoding=self.encoding)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        _log.error("the audit log can't be written", entry=record.getMessage(), exc_info=True)
