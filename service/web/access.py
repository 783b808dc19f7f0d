"""Who is let in to the web page, and what their browser may do with it."""

import base64
import re
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from service.access.door import Door
from service.access.exposure import is_loopback
from service.errors import (
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    ServiceError,
    Unauthenticated,
    Unavailable,
)

HEADERS = {
    # All there is comes from here, and no script may make HTML of data: it would be refused by the browser.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "chainrule",
}

STATUS: dict[type[ServiceError], int] = {
    InvalidArgument: 400,
    Unauthenticated: 401,
    NotFound: 404,
    ResourceExhausted: 503,
    Unavailable: 503,
}

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::[0-9]{1,5})?", re.ASCII)

_log = structlog.get_logger(__name__)


class Refused(Exception):
    """A request that is not let in: the HTTP status, a reason for programs, a message for people."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message


class Entry:
    """Where every request passes: whether it comes from where it should, and from someone who may read."""

    def __init__(self, door: Door, *, local: bool) -> None:
        """`local` says that only this machine reaches the page."""
        self._door = door
        self._local = local

    def admit(self, request: web.Request) -> None:
        """Raises Refused or Unauthenticated.

        A browser sends what its user gave it as a password, the token, by itself with every request. Two ways lead to a
        page that asks nobody, both through its user's own browser: a name of the attacker's that resolves to the
        loopback address (DNS rebinding), and requests of another page's scripts, which could not read the answers but
        use up the streams.
        """
        said = request.headers.get("Host", "")
        host = _HOST.fullmatch(said)
        if self._local and (host is None or not is_loopback(host[1])):
            raise Refused(421, "WRONG_HOST", f"the host is {said[:100]!r}; must be localhost or 127.0.0.1")
        if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin") and request.path != "/":
            raise Refused(403, "OTHER_SITE", "is asked for by a page of another site; open it in a tab of its own")
        self._door.principal([_bearer(text) for text in request.headers.getall("Authorization", [])])

    @property
    def middleware(self) -> Middleware:
        """Admits a request, and answers it; whatever goes wrong becomes a status, a reason and a sentence, in JSON."""

        @web.middleware
        async def guarded(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            try:
                self.admit(request)
                return await handler(request)
            except Exception as error:
                return _refusal(request, error)

        return guarded


def _bearer(authorization: str) -> str:
    """A browser's answer to being asked for a password, of whatever user, as clients send a token."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return authorization
    try:
        _, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:
        return ""
    return f"Bearer {password}"


def _refusal(request: web.Request, error: Exception) -> web.Response:
    path = request.path[:100]
    match error:
        case Refused():
            return _answer(error.status, error.reason, error.message)
        case ServiceError():
            status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 409)
            refused = _answer(status, error.reason, error.message)
            if status == 401:
                refused.headers["WWW-Authenticate"] = (
                    'Basic realm="Chainrule: the password is a token", charset="UTF-8"'
                )
            return refused
        case web.HTTPMethodNotAllowed():
            refused = _answer(405, "METHOD_NOT_ALLOWED", f"is {request.method[:20]}; only GET and HEAD are answered")
            refused.headers["Allow"] = ", ".join(sorted(error.allowed_methods))
            return refused
        case web.HTTPException():
            return _answer(error.status, error.reason.upper().replace(" ", "_"), f"{error.reason}: {path}")
        case _:
            _log.error("unexpected error", path=path, exc_info=error)
            return _answer(500, "INTERNAL", "something went wrong here; the coordinator's log says what")


async def protect(request: web.Request, response: web.StreamResponse) -> None:  # noqa: ARG001
    """Puts the headers on a response, before it goes."""
    response.headers.update(HEADERS)


def _answer(status: int, reason: str, message: str) -> web.Response:
    return web.json_response({"error": {"reason": reason, "message": message}}, status=status)
