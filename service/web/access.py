"""Who is let in to the web page, and what their browser may do with it."""

import re
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from service.errors import InvalidArgument, NotFound, ResourceExhausted, ServiceError, Unavailable
from service.settings import is_loopback

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

STATUS: dict[type[ServiceError], int] = {InvalidArgument: 400, NotFound: 404, ResourceExhausted: 503, Unavailable: 503}

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::[0-9]{1,5})?", re.ASCII)

_log = structlog.get_logger(__name__)


class Refused(Exception):
    """A request that is not let in: the HTTP status, a reason for programs, a message for people."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message


def admit(request: web.Request) -> None:
    """Every request passes here, and here alone: where it is asked who someone is, it is asked here. Raises Refused.

    The page is for this machine. Two ways lead to it from elsewhere, both through its user's own browser: a name of
    the attacker's that resolves to the loopback address (DNS rebinding), and requests of another page's scripts, which
    could not read the answers but use up the streams.
    """
    said = request.headers.get("Host", "")
    host = _HOST.fullmatch(said)
    if host is None or not is_loopback(host[1]):
        raise Refused(421, "WRONG_HOST", f"the host is {said[:100]!r}; must be localhost or 127.0.0.1")
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin") and request.path != "/":
        raise Refused(403, "OTHER_SITE", "is asked for by a page of another site; open it in a tab of its own")


@web.middleware
async def guarded(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Admits a request, and answers it; whatever goes wrong becomes a status, a reason and a sentence, in JSON."""
    try:
        admit(request)
        return await handler(request)
    except Refused as error:
        return _error(error.status, error.reason, error.message)
    except ServiceError as error:
        status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 409)
        return _error(status, error.reason, error.message)
    except web.HTTPMethodNotAllowed as error:
        refused = _error(405, "METHOD_NOT_ALLOWED", f"is {request.method[:20]}; only GET and HEAD are answered")
        refused.headers["Allow"] = ", ".join(sorted(error.allowed_methods))
        return refused
    except web.HTTPException as error:
        return _error(error.status, error.reason.upper().replace(" ", "_"), f"{error.reason}: {request.path[:100]}")
    except Exception:
        _log.exception("unexpected error", path=request.path[:100])
        return _error(500, "INTERNAL", "something went wrong here; the coordinator's log says what")


async def protect(request: web.Request, response: web.StreamResponse) -> None:  # noqa: ARG001
    """Puts the headers on a response, before it goes."""
    response.headers.update(HEADERS)


def _error(status: int, reason: str, message: str) -> web.Response:
    return web.json_response({"error": {"reason": reason, "message": message}}, status=status)
