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


async def with_header(messages: AsyncIterator[Request], given_up: str) -> Request:
    """The first message, which has the header. Raises InvalidArgument, or Aborted, saying what is then `given_up`."""
    first = await _next(messages, given_up)
    if first is None or not first.HasField("header"):
        raise InvalidArgument.of("payload", "must begin with a header")
    return first


async def with_chunks(messages: AsyncIterator[Request], given_up: str) -> AsyncIterator[Request]:
    """The messages after that, each with a chunk. Raises InvalidArgument or Aborted."""
    while message := await _next(messages, given_up):
        if not message.HasField("chunk"):
            raise InvalidArgument.of("payload", "must be a chunk; the header comes once, and first")
        yield message


async def _next(messages: AsyncIterator[Request], given_up: str) -> Request | None:
    """The next message, or None at the end of the stream."""
    try:
        return await asyncio.wait_for(anext(messages), IDLE_SECONDS)
    except StopAsyncIteration:
        return None
    except TimeoutError:
        raise Aborted(f"nothing came for {IDLE_SECONDS:.0f} seconds; {given_up}", reason="UPLOAD_IDLE") from None
