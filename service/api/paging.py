"""Pages of a list.

A token says after which item the next page begins, so that items that come and go meanwhile shift nothing.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

from google.protobuf.message import Message

from service.errors import InvalidArgument

DEFAULT_SIZE = 50
LARGEST_SIZE = 1_000
LARGEST_BYTES = 3 << 20
"""What a page's items may have: less than a message, which by default both sides limit to 4 MiB."""

T = TypeVar("T")
M = TypeVar("M", bound=Message)
Key = TypeVar("Key", str, tuple[int | str, ...])


class ListRequest(Protocol):
    """What all List requests have."""

    page_size: int
    page_token: str


def page(
    items: Iterable[T],
    key: Callable[[T], Key],
    message: Callable[[T], M],
    request: ListRequest,
    *,
    newest_first: bool = False,
    of: str = "",
) -> tuple[Sequence[M], str]:
    """The page that was asked for, as messages, and the token of the next one, "" if this is the last.

    Items are sorted by `key`, which must be unique, and of one type for all; with `newest_first` from the largest down.
    A page is shorter than asked for where more would not fit into a response. Tokens of one list are none of another:
    `of` tells them apart. Raises InvalidArgument.
    """
    if request.page_size < 0:
        raise InvalidArgument.of("page_size", f"is {request.page_size}; must be 0 (for {DEFAULT_SIZE}) or more")
    size = min(request.page_size or DEFAULT_SIZE, LARGEST_SIZE)
    ordered = sorted(items, key=key, reverse=newest_first)
    if request.page_token:
        last: Any = _decode(request.page_token, of, [key(item) for item in ordered[:1]])
        ordered = [item for item in ordered if (key(item) < last if newest_first else key(item) > last)]
    messages: list[M] = []
    room = LARGEST_BYTES
    for item in ordered[:size]:
        messages.append(message(item))
        room -= messages[-1].ByteSize()
        if room < 0 and len(messages) > 1:
            del messages[-1]
            break
    return messages, _encode(key(ordered[len(messages) - 1]), of) if len(ordered) > len(messages) else ""


def _encode(key: Key, of: str) -> str:
    return base64.urlsafe_b64encode(json.dumps(["after", _mark(of), key]).encode()).decode()


def _decode(token: str, of: str, keys: Sequence[object]) -> Any:
    """The key in a token, of the same type as others."""
    try:
        prefix, mark, key = json.loads(base64.b64decode(token.encode(), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, TypeError, RecursionError):
        prefix, mark, key = "", "", None
    found = tuple(key) if isinstance(key, list) else key
    if prefix != "after" or any(_types(found) != _types(other) for other in keys):
        raise InvalidArgument.of(
            "page_token", f"is {token[:100]!r}; must be the next_page_token of the page before, unchanged"
        )
    if mark != _mark(of):
        raise InvalidArgument.of(
            "page_token",
            "is of a list with another filter or order; ask for the first page of this one without a token",
        )
    return found


def _types(key: Any) -> object:
    return tuple(map(type, key)) if isinstance(key, tuple) else type(key)


def _mark(of: str) -> str:
    return hashlib.sha256(of.encode(errors="replace")).hexdigest()[:16]
