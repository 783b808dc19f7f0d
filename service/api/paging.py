"""Pages of a list.

A token says after which item the next page begins, so that items that come and go meanwhile shift nothing.
"""

import base64
import binascii
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from service.errors import InvalidArgument

DEFAULT_SIZE = 50
LARGEST_SIZE = 1_000
LARGEST_BYTES = 3 << 20
"""What a page's items may have: less than a message, which by default both sides limit to 4 MiB."""

T = TypeVar("T")
M = TypeVar("M", bound=Message)


class ListRequest(Protocol):
    """What all List requests have."""

    page_size: int
    page_token: str


def page(
    items: Iterable[T],
    key: Callable[[T], str],
    message: Callable[[T], M],
    request: ListRequest,
    *,
    newest_first: bool = False,
) -> tuple[Sequence[M], str]:
    """The page that was asked for, as messages, and the token of the next one, "" if this is the last.

    Items are sorted by `key`, which must be unique; with `newest_first` from the largest down. A page is shorter than
    asked for where more would not fit into a response. Raises InvalidArgument.
    """
    if request.page_size < 0:
        raise InvalidArgument.of("page_size", f"is {request.page_size}; must be 0 (for {DEFAULT_SIZE}) or more")
    size = min(request.page_size or DEFAULT_SIZE, LARGEST_SIZE)
    ordered = sorted(items, key=key, reverse=newest_first)
    if request.page_token:
        last = _decode(request.page_token)
        ordered = [item for item in ordered if (key(item) < last if newest_first else key(item) > last)]
    messages: list[M] = []
    room = LARGEST_BYTES
    for item in ordered[:size]:
        messages.append(message(item))
        room -= messages[-1].ByteSize()
        if room < 0 and len(messages) > 1:
            del messages[-1]
            break
    return messages, _encode(key(ordered[len(messages) - 1])) if len(ordered) > len(messages) else ""


def _encode(key: str) -> str:
    return base64.urlsafe_b64encode(f"after:{key}".encode()).decode()


def _decode(token: str) -> str:
    try:
        text = base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        text = ""
    prefix, _, key = text.partition(":")
    if prefix != "after":
        raise InvalidArgument.of(
            "page_token", f"is {token[:100]!r}; must be the next_page_token of the page before, unchanged"
        )
    return key
