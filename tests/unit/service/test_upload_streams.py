"""Uploads that stop half-way while their client stays connected."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from chainrule.v1.dataset_service_pb2 import DatasetChunk, UploadDatasetHeader, UploadDatasetRequest
from service.api.streams import with_chunks, with_header
from service.errors import Aborted

HEADER = UploadDatasetRequest(header=UploadDatasetHeader(dataset_id="cars"))
CHUNK = UploadDatasetRequest(chunk=DatasetChunk(data=b"abc"))


async def then_nothing(*messages: UploadDatasetRequest) -> AsyncIterator[UploadDatasetRequest]:
    """Some messages, and then silence."""
    for message in messages:
        yield message
    await asyncio.Event().wait()


def test_silence_before_the_header_ends_the_upload() -> None:
    async def upload() -> None:
        await with_header(then_nothing(), "nothing is kept", idle_seconds=0.01)

    with pytest.raises(Aborted, match="nothing is kept") as error:
        asyncio.run(upload())
    assert error.value.reason == "UPLOAD_IDLE"


def test_silence_after_a_chunk_ends_the_upload() -> None:
    taken: list[UploadDatasetRequest] = []
    keep = taken.append

    async def upload() -> None:
        messages = then_nothing(HEADER, CHUNK, CHUNK)
        keep(await with_header(messages, "it can go on", idle_seconds=1))
        async for message in with_chunks(messages, "it can go on", idle_seconds=0.01):
            keep(message)

    with pytest.raises(Aborted, match=r"nothing came for 0\.01 seconds; it can go on"):
        asyncio.run(upload())
    assert taken == [HEADER, CHUNK, CHUNK]
