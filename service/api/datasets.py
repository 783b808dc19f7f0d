"""DatasetService."""

import asyncio
import contextvars
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from google.protobuf.empty_pb2 import Empty

from chainrule.v1 import dataset_service_pb2 as pb
from chainrule.v1 import dataset_service_pb2_grpc as stubs
from service.api.paging import page
from service.api.streams import with_chunks, with_header
from service.data import importing, reading
from service.data.datasets import Content, Dataset, Datasets
from service.data.importing import Imports
from service.data.uploads import UploadKey, Uploads
from service.errors import FailedPrecondition, InvalidArgument, Violations
from service.jobs.jobs import Jobs
from service.wire.datasets import parse_format, parse_groups, parse_upload_key
from service.wire.names import require_id, require_name
from service.wire.resources import dataset_message

T = TypeVar("T")

KEPT = "what had arrived is kept, and another call may go on there"
"""What becomes of an upload that falls silent."""

IMPORTS_AT_ONCE = 2
"""How many files are fetched at a time; others wait. A store may take its time, and other calls need threads too."""


class DatasetServicer(stubs.DatasetServiceServicer):
    """Datasets over gRPC."""

    def __init__(self, datasets: Datasets, uploads: Uploads, imports: Imports, jobs: Jobs) -> None:
        self._datasets = datasets
        self._uploads = uploads
        self._imports = imports
        self._jobs = jobs
        self._importing = ThreadPoolExecutor(IMPORTS_AT_ONCE, "import")

    async def UploadDataset(self, request: AsyncIterator[pb.UploadDatasetRequest], context: object) -> pb.Dataset:  # noqa: ARG002, N802
        messages = aiter(request)
        key, content = _parse((await with_header(messages, KEPT)).header)
        if there := self._datasets.made_of(key.dataset_id, content):
            return dataset_message(there)
        await asyncio.to_thread(self._datasets.check_size, key.size_bytes)
        async with _in_threads(self._uploads.open(key)) as upload:
            async for message in with_chunks(messages, KEPT):
                await asyncio.to_thread(upload.write, message.chunk.offset, message.chunk.data)

            def make(path: Path) -> Dataset:
                return self._datasets.add(key.dataset_id, content, path)

            return dataset_message(await asyncio.to_thread(self._uploads.finish, upload, make))

    async def QueryUpload(self, request: pb.QueryUploadRequest, context: object) -> pb.QueryUploadResponse:  # noqa: ARG002, N802
        key = parse_upload_key(request, "")
        if self._datasets.has(key.dataset_id, key.sha256, key.size_bytes):
            return pb.QueryUploadResponse(committed_bytes=key.size_bytes, complete=True)
        return pb.QueryUploadResponse(committed_bytes=self._uploads.committed(key))

    async def ImportDataset(self, request: pb.ImportDatasetRequest, context: object) -> pb.Dataset:  # noqa: ARG002, N802
        require_id(request.dataset_id, "dataset_id")
        violations = Violations()
        known = parse_format(request.format, "format", violations)
        groups = parse_groups(request.groups, "groups", violations)
        violations.raise_any()

        def fetch_and_make() -> Dataset:
            with TemporaryDirectory(dir=self._datasets.root, prefix=".importing-") as directory:
                path = Path(directory, "file")
                sha256, size = self._imports.fetch(request.uri, path)
                content = Content(sha256, size, known, groups)
                if there := self._datasets.made_of(request.dataset_id, content):
                    return there
                self._datasets.check_size(size)
                return self._datasets.add(request.dataset_id, content, path)

        try:
            caller = contextvars.copy_context()
            fetched = asyncio.get_running_loop().run_in_executor(self._importing, caller.run, fetch_and_make)
            return dataset_message(await fetched)
        except InvalidArgument as error:
            # Readers say "chunk", since an upload is the usual way; here it is the file at the address.
            renamed = [
                replace(each, field=importing.FIELD) if each.field == reading.FIELD else each
                for each in error.violations
            ]
            raise InvalidArgument(renamed, error.reason) from error

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


@asynccontextmanager
async def _in_threads(context: AbstractContextManager[T]) -> AsyncIterator[T]:
    """A context that is entered and left in threads, since what it does there takes the disk's time."""
    entered = await asyncio.to_thread(context.__enter__)
    try:
        yield entered
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)


def _parse(header: pb.UploadDatasetHeader) -> tuple[UploadKey, Content]:
    key = parse_upload_key(header, "header.")
    violations = Violations()
    known = parse_format(header.format, "header.format", violations)
    groups = parse_groups(header.groups, "header.groups", violations)
    violations.raise_any()
    return key, Content(key.sha256, key.size_bytes, known, groups)
