"""What the service refuses, as a tree.

    ServiceError
    +-- InvalidArgument      the request is wrong, whatever the state of the service; names every wrong field
    +-- NotFound             no such job, dataset or model
    +-- AlreadyExists        the name or request id is taken by something else
    +-- FailedPrecondition   right request, wrong moment: the state forbids it
    +-- Unauthenticated      nobody knows who calls
    +-- PermissionDenied     the caller may not do this
    +-- ResourceExhausted    a limit is reached
    +-- Aborted              another call was in the way, or this one stopped half-way; begin again where it stood
    +-- Unavailable          the service is stopping, or the client was too slow; the same call may be made again soon

Each has a reason in upper case for programs and a message for people, which names the thing, says what was wrong with
it, and what would be right. api/errors.py turns them into gRPC status codes; no other exception's text leaves the
process.
"""

from collections.abc import Sequence
from dataclasses import dataclass


class ServiceError(Exception):
    """Anything the service refuses."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason


@dataclass(frozen=True)
class Violation:
    """One wrong field of a request: its path from the request message down, and a sentence about it."""

    field: str
    description: str


class InvalidArgument(ServiceError):
    """One or more fields of the request are wrong."""

    def __init__(self, violations: Sequence[Violation], reason: str = "INVALID_FIELD") -> None:
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations), reason)
        self.violations = tuple(violations)

    @classmethod
    def of(cls, field: str, description: str, reason: str = "INVALID_FIELD") -> "InvalidArgument":
        """For a single field."""
        return cls([Violation(field, description)], reason)


class NotFound(ServiceError):
    """No such resource."""

    def __init__(self, name: str) -> None:
        kind = "checkpoint" if "/checkpoints/" in name else name.partition("/")[0].removesuffix("s")
        super().__init__(f"there is no {kind} {name}", f"{kind.upper()}_NOT_FOUND")


class AlreadyExists(ServiceError):
    """The name or request id is taken by something else."""


class FailedPrecondition(ServiceError):
    """Right request, wrong moment."""


class Unauthenticated(ServiceError):
    """Nobody knows who calls."""


class PermissionDenied(ServiceError):
    """The caller may not do this."""


class ResourceExhausted(ServiceError):
    """A limit is reached."""

    def __init__(self, message: str, reason: str, retry_seconds: float | None = None) -> None:
        """`retry_seconds` says when the same call may succeed, where time alone helps."""
        super().__init__(message, reason)
        self.retry_seconds = retry_seconds


class Aborted(ServiceError):
    """Another call was in the way, or this one stopped half-way."""


class Unavailable(ServiceError):
    """The service is stopping, or gave the caller up."""

    retry_seconds = 5.0
    """When the one that takes its place may be there."""


class Violations:
    """Collects the wrong fields of a request, so that a user learns of all of them at once."""

    def __init__(self) -> None:
        self._found: list[Violation] = []

    def add(self, field: str, description: str) -> None:
        """Notes a wrong field."""
        self._found.append(Violation(field, description))

    def raise_any(self) -> None:
        """Raises InvalidArgument if a field was noted."""
        if self._found:
            raise InvalidArgument(self._found)
