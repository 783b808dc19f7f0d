"""The messages of an upload as they come: a header, then chunks."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

from chainrule.v1.dataset_service_pb2 import UploadDatasetRequest
from chainrule.v1.model_service_pb2 import UploadModelRequest
from service.errors import Aborted, InvalidArgument

IDLE_SECONDS = 60.0
"""How long an upload may send nothing."""

Request = TypeVar("Request", UploadDatasetRequest, UploadModelRequest)


async def with_header(messages: AsyncIterator[Request], given_up: str, idle_seconds: float = IDLE_SECONDS) -> Request:
    """The first message, which has the header. Raises InvalidArgument, or Aborted, saying what is then `given_up`."""
    first = await _next(messages, given_up, idle_seconds)
    if first is None or not first.HasField("header"):
        raise InvalidArgument.of("payload", "must begin with a header")
    return first


async def with_chunks(
    messages: AsyncIterator[Request], given_up: str, idle_seconds: float = IDLE_SECONDS
) -> AsyncIterator[Request]:
    """The messages after that, each with a chunk. Raises InvalidArgument or Aborted."""
    while message := await _next(messages, given_up, idle_seconds):
        if not message.HasField("chunk"):
            raise InvalidArgument.of("payload", "must be a chunk; the header comes once, and first")
        yield message


async def _next(messages: AsyncIterator[Request], given_up: str, idle_seconds: float) -> Request | None:
    """The next message, or None at the end of the stream."""
    try:
        return await asyncio.wait_for(anext(messages), idle_seconds)
    except StopAsyncIteration:
        return None
    except TimeoutError:
        raise Aborted(f"nothing came for {idle_seconds:g} seconds; {given_up}", reason="UPLOAD_IDLE") from None
