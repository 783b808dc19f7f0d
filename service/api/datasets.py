"""DatasetService."""

import asyncio
from collections.abc import AsyncIterator

from google.protobuf.empty_pb2 import Empty

from chainrule.v1 import dataset_service_pb2 as pb
from chainrule.v1 import dataset_service_pb2_grpc as stubs
from service.api.paging import page
from service.data.datasets import Datasets
from service.errors import FailedPrecondition, InvalidArgument, ResourceExhausted, Violations
from service.jobs.jobs import Jobs
from service.wire.names import require_id, require_name
from service.wire.resources import dataset_message

IDLE_SECONDS = 60.0
"""How long an upload may send nothing."""


class DatasetServicer(stubs.DatasetServiceServicer):
    """Datasets over gRPC."""

    def __init__(self, datasets: Datasets, jobs: Jobs) -> None:
        self._datasets = datasets
        self._jobs = jobs

    async def UploadDataset(self, request: AsyncIterator[pb.UploadDatasetRequest], context: object) -> pb.Dataset:  # noqa: ARG002, N802
        messages = aiter(request)
        header = await _header(messages)
        self._check(header)
        with self._datasets.receive(header.size_bytes) as upload:
            while message := await _next(messages):
                if not message.HasField("chunk"):
                    raise InvalidArgument.of("payload", "must be a chunk; the header comes once, and first")
                await asyncio.to_thread(upload.write, message.chunk.offset, message.chunk.data)
            dataset = await asyncio.to_thread(self._datasets.add, header.dataset_id, upload, header.sha256)
        return dataset_message(dataset)

    async def GetDataset(self, request: pb.GetDatasetRequest, context: object) -> pb.Dataset:  # noqa: ARG002, N802
        return dataset_message(self._datasets.get(require_name(request.name, "datasets")))

    async def ListDatasets(self, request: pb.ListDatasetsRequest, context: object) -> pb.ListDatasetsResponse:  # noqa: ARG002, N802
        everything = await asyncio.to_thread(self._datasets.all)
        datasets, token = page(everything, lambda dataset: dataset.id, dataset_message, request)
        return pb.ListDatasetsResponse(datasets=datasets, next_page_token=token)

    async def DeleteDataset(self, request: pb.DeleteDatasetRequest, context: object) -> Empty:  # noqa: ARG002, N802
        dataset_id = require_name(request.name, "datasets")
        users = [job.name for job in self._jobs.all() if job.spec.dataset == dataset_id and not job.has_ended]
        if users:
            raise FailedPrecondition(
                f"{request.name} is used by {', '.join(users[:3])}; cancel that first, or wait for its end",
                reason="DATASET_IN_USE",
            )
        await asyncio.to_thread(self._datasets.delete, dataset_id)
        return Empty()

    def _check(self, header: pb.UploadDatasetHeader) -> None:
        require_id(header.dataset_id, "header.dataset_id")
        violations = Violations()
        if header.format != pb.Dataset.NPZ:
            violations.add("header.format", f"is {header.format}; must be NPZ")
        if header.size_bytes < 1:
            violations.add("header.size_bytes", f"is {header.size_bytes}; must be the file's size, above 0")
        if len(header.sha256) != 64 or not set(header.sha256.lower()) <= set("0123456789abcdef"):
            violations.add("header.sha256", "must be the file's SHA-256: 64 hexadecimal digits")
        violations.raise_any()
        if header.size_bytes > self._datasets.most_bytes:
            raise ResourceExhausted(
                f"the file has {header.size_bytes:,} bytes; a dataset may have {self._datasets.most_bytes:,}",
                reason="DATASET_TOO_LARGE",
            )
        self._datasets.check_free(header.dataset_id)


async def _header(messages: AsyncIterator[pb.UploadDatasetRequest]) -> pb.UploadDatasetHeader:
    first = await _next(messages)
    if first is None or not first.HasField("header"):
        raise InvalidArgument.of("payload", "must begin with a header")
    return first.header


async def _next(messages: AsyncIterator[pb.UploadDatasetRequest]) -> pb.UploadDatasetRequest | None:
    """The next message, or None at the end of the stream."""
    try:
        return await asyncio.wait_for(anext(messages), IDLE_SECONDS)
    except StopAsyncIteration:
        return None
    except TimeoutError:
        raise InvalidArgument.of(
            "payload", f"nothing came for {IDLE_SECONDS:.0f} seconds; the upload was given up", reason="UPLOAD_IDLE"
        ) from None
