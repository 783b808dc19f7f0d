"""The messages of an upload as they come."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

from service.errors import InvalidArgument

IDLE_SECONDS = 60.0
"""How long an upload may send nothing."""

T = TypeVar("T")


async def next_message(messages: AsyncIterator[T]) -> T | None:
    """The next message, or None at the end of the stream. Raises InvalidArgument if none comes."""
    try:
        return await asyncio.wait_for(anext(messages), IDLE_SECONDS)
    except StopAsyncIteration:
        return None
    except TimeoutError:
        raise InvalidArgument.of(
            "payload", f"nothing came for {IDLE_SECONDS:.0f} seconds; the upload was given up", reason="UPLOAD_IDLE"
        ) from None
