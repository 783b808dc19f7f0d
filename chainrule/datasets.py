"""What a client does with datasets."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from chainrule.connection import Connection
from chainrule.packing import Source, packed
from chainrule.resources import DATASETS, bare_id, full_name
from chainrule.transfer import Progress, Upload, column_groups
from chainrule.uploading import send_all
from chainrule.v1 import dataset_service_pb2
from chainrule.v1.dataset_service_pb2 import Dataset, QueryUploadRequest, UploadDatasetHeader, UploadDatasetRequest
from chainrule.v1.dataset_service_pb2_grpc import DatasetServiceStub


class DatasetCalls(Connection):
    """The calls of DatasetService."""

    @cached_property
    def _datasets(self) -> DatasetServiceStub:
        return DatasetServiceStub(self._channel)

    def upload_dataset(
        self,
        source: Source,
        dataset_id: str,
        progress: Progress | None = None,
        *,
        layout: "Dataset.Format.ValueType" = Dataset.FORMAT_UNSPECIFIED,
        groups: Mapping[str, Sequence[str]] | None = None,
        patience: float = 60.0,
    ) -> Dataset:
        """Uploads data and returns the dataset that it became.

            client.upload_dataset(Path("cars.csv"), "cars", groups={"y": ["price"], "x": ["*"]})
            client.upload_dataset({"x": Path("train-images-idx3-ubyte.gz"), "y": labels}, "fashion")

        `source` is a file by its path (npz, csv, IDX, Parquet or Arrow, also gzip), a file's bytes, or a mapping of
        columns to arrays or to .npy and IDX files, which are packed into one file here. The service finds the format
        out unless `layout` says it. `groups` gathers columns of a table under a new name; "*" stands for every numeric
        column that no group names.

        When the connection breaks, the upload goes on by itself where it stood once the coordinator is back; and so
        does a repeated call, even from another process, within a day. A repeated call for a finished upload returns
        the dataset. `progress` is called from another thread.

        Raises Unavailable when nobody answers at first or for `patience` seconds, AlreadyExists if the id is taken by
        something else, InvalidRequest if the service cannot accept the file, DatasetFileError for what can be no
        column, OSError if a file cannot be read.
        """
        with packed(source) as file:
            header = UploadDatasetHeader(dataset_id=bare_id(dataset_id), format=layout, groups=column_groups(groups))
            upload = Upload(file, UploadDatasetRequest(header=header), progress)
            key = QueryUploadRequest(dataset_id=header.dataset_id, size_bytes=upload.size, sha256=upload.sha256)
            timeout = self._transfer_timeout(upload.size)
            return send_all(
                lambda messages: self._datasets.UploadDataset(messages, timeout=timeout),
                lambda key: self._datasets.QueryUpload(key, timeout=self._timeout),
                upload,
                key,
                self.address,
                patience,
            )

    def import_dataset(
        self,
        uri: str,
        dataset_id: str,
        *,
        layout: "Dataset.Format.ValueType" = Dataset.FORMAT_UNSPECIFIED,
        groups: Mapping[str, Sequence[str]] | None = None,
        timeout: float = 600.0,
    ) -> Dataset:
        """Has the coordinator make a dataset of a file that it can reach: "file:///srv/data/cars.csv", "s3://...".

        It must be below a place that the coordinator was started with (--import-root). Raises FailedPrecondition if
        there is no such place, InvalidRequest if the file is elsewhere or cannot be accepted, and what else
        `upload_dataset` does; DeadlineExceeded after `timeout` seconds, though the dataset may still come to be.
        """
        request = dataset_service_pb2.ImportDatasetRequest(
            dataset_id=bare_id(dataset_id), uri=uri, format=layout, groups=column_groups(groups)
        )
        return self._call(self._datasets.ImportDataset, request, timeout)

    def get_dataset(self, name: str) -> Dataset:
        """A dataset's description."""
        request = dataset_service_pb2.GetDatasetRequest(name=full_name(DATASETS, name))
        return self._call(self._datasets.GetDataset, request)

    def datasets(self, *, page_size: int = 0) -> Iterator[Dataset]:
        """All datasets by name, fetched page by page."""
        request = dataset_service_pb2.ListDatasetsRequest(page_size=page_size)
        while True:
            page = self._call(self._datasets.ListDatasets, request)
            yield from page.datasets
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def delete_dataset(self, name: str) -> None:
        """Removes a dataset. Raises FailedPrecondition if an unfinished job uses it."""
        request = dataset_service_pb2.DeleteDatasetRequest(name=full_name(DATASETS, name))
        self._call(self._datasets.DeleteDataset, request)
