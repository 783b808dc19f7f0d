"""Principals: who calls, and what that lets them do.

Whoever handles a call can ask for its `caller`. Without authentication, and for what the service does by itself, that
is `EVERYONE`, who may do everything. What is made in a call carries the caller's name; only they, or an admin, may end
or delete it.
"""

import enum
from contextvars import ContextVar
from dataclasses import dataclass

from service.errors import PermissionDenied


class Scope(enum.IntEnum):
    """What a principal may do. Each includes those before it."""

    READ = 1
    """Look at everything, predict, evaluate. Changes nothing."""
    TRAIN = 2
    """Also make datasets, models and jobs, and end or delete its own."""
    ADMIN = 3
    """Also end or delete those of others, and say which model an alias stands for."""


@dataclass(frozen=True)
class Principal:
    """Someone who calls."""

    name: str
    scope: Scope


EVERYONE = Principal("", Scope.ADMIN)
"""Whoever calls a service that doesn't ask, and the service itself."""

_caller: ContextVar[Principal] = ContextVar("caller", default=EVERYONE)


def caller() -> Principal:
    """Who made the call that is being handled here."""
    return _caller.get()


def act_as(principal: Principal) -> None:
    """Has what this task does from here on, threads that asyncio starts for it included, happen on someone's behalf."""
    _caller.set(principal)


def require_owner(resource: str, created_by: str) -> None:
    """Raises PermissionDenied unless the caller made the resource, or is an admin."""
    who = caller()
    if who.scope < Scope.ADMIN and who.name != created_by:
        owner = f"{created_by!r} made it" if created_by else "it was made before there were principals"
        raise PermissionDenied(
            f"{resource} isn't {who.name!r}'s: {owner}; that principal or one with the scope admin may do this",
            reason="NOT_OWNER",
        )
