"""The client: every call of the service as a plain method, with a deadline, in this process's own thread.

It adds to the generated stubs what every caller would otherwise write again: pages become iterators, a watch survives
a restart of the coordinator, files are cut into chunks and checked, errors are Python's. What comes back are the
contract's own messages.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import grpc
import numpy as np
from numpy.typing import ArrayLike

from chainrule.channel import open_channel
from chainrule.credentials import find_credentials
from chainrule.errors import from_rpc_error
from chainrule.inference.open_inference_pb2 import ModelMetadataRequest, ModelMetadataResponse
from chainrule.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from chainrule.packing import Source, packed
from chainrule.predicting import Numbers, as_columns, outputs, requests
from chainrule.resources import DATASETS, JOBS, MODELS, bare_alias, bare_id, full_name
from chainrule.transfer import Progress, Upload, column_groups, save_download
from chainrule.uploading import send_all
from chainrule.v1 import dataset_service_pb2, model_service_pb2, training_service_pb2
from chainrule.v1.dataset_service_pb2 import Dataset, QueryUploadRequest, UploadDatasetHeader, UploadDatasetRequest
from chainrule.v1.dataset_service_pb2_grpc import DatasetServiceStub
from chainrule.v1.model_service_pb2 import EvaluateModelResponse, Model, UploadModelHeader, UploadModelRequest
from chainrule.v1.model_service_pb2_grpc import ModelServiceStub
from chainrule.v1.network_pb2 import Loss, Network
from chainrule.v1.training_event_pb2 import TrainingEvent
from chainrule.v1.training_job_pb2 import TrainingJob, TrainingJobSpec, TrainingProgress
from chainrule.v1.training_service_pb2_grpc import TrainingServiceStub
from chainrule.watching import watch

DEFAULT_TIMEOUT = 30.0
SLOWEST_TRANSFER = 1024 * 1024  # bytes a second: what a link has to manage for a file to arrive within its deadline
WATCH_DEADLINE = 600.0  # seconds; a watch that reaches it opens the next stream where this one stopped

Request = TypeVar("Request")
Response = TypeVar("Response")


class Client:
    """A connection to a coordinator. Use it in a ``with`` block; it may be shared by threads.

        with Client("127.0.0.1:50051") as client:
            job = client.wait(client.create_job(spec).name)

    Names are accepted as bare ids (``"x"``) or in full (``"jobs/x"``); of a model also an alias (``"@production"``).
    Every method raises a `chainrule.errors.ServiceError`: `Unavailable` if nobody answers at the address,
    `DeadlineExceeded` if there is no answer in time, `NotFound` for a name that does not exist, and what else its
    docstring says.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        token: str | None = None,
        ca: Path | None = None,
        cert: Path | None = None,
        key: Path | None = None,
    ) -> None:
        """For the service at `address`, ``host:port``, or ``grpcs://host:port`` for TLS; a call may take `timeout` s.

        The transfer of a file may take as long again as 1 MiB a second needs. Nothing is connected before the first
        call. `token` proves who calls, `ca` has the certificates that are trusted instead of the system's, `cert` and
        `key` are this side's own; find_credentials tells what is taken for those that are not given. A token is sent
        over TLS or within this machine, and never else. Raises CredentialsError.
        """
        self.address = address
        self._timeout = timeout
        self._channel = open_channel(address, find_credentials(token, ca, cert, key))
        self._training = TrainingServiceStub(self._channel)
        self._datasets = DatasetServiceStub(self._channel)
        self._models = ModelServiceStub(self._channel)
        self._inference = GRPCInferenceServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection and every call that is under way."""
        self._channel.close()

    # Jobs

    def create_job(
        self, job: TrainingJob | TrainingJobSpec, *, request_id: str | None = None, validate_only: bool = False
    ) -> TrainingJob:
        """Puts a job in the queue, or, with `validate_only`, only checks it and fills in its defaults.

        Repeating a call with the same `request_id` (a new UUID if None) and job returns the first call's job. Raises
        InvalidRequest with a violation for every wrong field.
        """
        if isinstance(job, TrainingJobSpec):
            job = TrainingJob(spec=job)
        request = training_service_pb2.CreateTrainingJobRequest(
            training_job=job, request_id=request_id or str(uuid.uuid4()), validate_only=validate_only
        )
        return self._call(self._training.CreateTrainingJob, request)

    def get_job(self, name: str) -> TrainingJob:
        """The job as it stands now."""
        request = training_service_pb2.GetTrainingJobRequest(name=full_name(JOBS, name))
        return self._call(self._training.GetTrainingJob, request)

    def jobs(self, *, page_size: int = 0) -> Iterator[TrainingJob]:
        """All jobs, the newest first, fetched page by page (0: of the service's own size) as they are asked for."""
        request = training_service_pb2.ListTrainingJobsRequest(page_size=page_size)
        while True:
            page = self._call(self._training.ListTrainingJobs, request)
            yield from page.training_jobs
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def cancel_job(self, name: str) -> TrainingJob:
        """Ends a job for good and returns it. Raises FailedPrecondition if it had ended already."""
        request = training_service_pb2.CancelTrainingJobRequest(name=full_name(JOBS, name))
        return self._call(self._training.CancelTrainingJob, request)

    def pause_job(self, name: str) -> TrainingJob:
        """Has a job let go of its workers until it is resumed. Raises FailedPrecondition if it is paused or ended."""
        request = training_service_pb2.PauseTrainingJobRequest(name=full_name(JOBS, name))
        return self._call(self._training.PauseTrainingJob, request)

    def resume_job(self, name: str) -> TrainingJob:
        """Puts a paused job back in the queue. Raises FailedPrecondition if it is not paused."""
        request = training_service_pb2.ResumeTrainingJobRequest(name=full_name(JOBS, name))
        return self._call(self._training.ResumeTrainingJob, request)

    def delete_job(self, name: str) -> None:
        """Removes an ended job; its model stays. Raises FailedPrecondition if it has not ended."""
        request = training_service_pb2.DeleteTrainingJobRequest(name=full_name(JOBS, name))
        self._call(self._training.DeleteTrainingJob, request)

    def watch(
        self, name: str, *, after_event: int = 0, patience: float = 60.0
    ) -> Iterator[TrainingEvent | TrainingProgress]:
        """A job's events after number `after_event`, old ones and then new ones, up to its last; between them progress.

        When the coordinator goes away the watch goes on by itself once it is back: no event is missed, none comes
        twice. Raises Unavailable when nobody has answered for `patience` seconds.
        """

        def stream(after: int) -> Iterator[training_service_pb2.WatchTrainingJobResponse]:
            request = training_service_pb2.WatchTrainingJobRequest(name=full_name(JOBS, name), after_event=after)
            call = self._training.WatchTrainingJob(request, timeout=WATCH_DEADLINE)
            try:
                yield from call
            finally:
                call.cancel()  # or the service goes on sending to a caller who has stopped looking

        return watch(stream, self.address, after_event, patience)

    def wait(self, name: str) -> TrainingJob:
        """Waits until a job has ended, however long that takes, and returns it. Raises as `watch` does."""
        for _ in self.watch(name, after_event=self.get_job(name).last_event):
            pass
        return self.get_job(name)

    # Datasets

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

    # Models

    def get_model(self, name: str) -> Model:
        """A model's description."""
        request = model_service_pb2.GetModelRequest(name=full_name(MODELS, name))
        return self._call(self._models.GetModel, request)

    def models(self, *, page_size: int = 0) -> Iterator[Model]:
        """All models, the newest first, fetched page by page."""
        request = model_service_pb2.ListModelsRequest(page_size=page_size)
        while True:
            page = self._call(self._models.ListModels, request)
            yield from page.models
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def upload_model(
        self,
        source: Path | bytes,
        model_id: str = "",
        *,
        network: Network | None = None,
        input_shape: Sequence[int] = (),
        input_column: str = "",
        progress: Progress | None = None,
    ) -> Model:
        """Uploads a safetensors file, given by its path or as its bytes, and returns the model that it became.

        Without an id the service makes one. A file that doesn't say of which network it has the parameters needs the
        `network` and the shape of one input row. `progress` is called from another thread. Raises AlreadyExists if the
        id is taken, InvalidRequest with a violation for every tensor that is wrong, OSError if it cannot be read.
        """
        header = UploadModelHeader(
            model_id=bare_id(model_id), network=network, input_shape=input_shape, input_column=input_column
        )
        upload = Upload(source, UploadModelRequest(header=header), progress)
        try:
            return self._models.UploadModel(upload.messages(), timeout=self._transfer_timeout(upload.size))
        except grpc.RpcError as error:
            if upload.failure is not None:
                raise upload.failure from error
            raise from_rpc_error(error, self.address) from error

    def delete_model(self, name: str) -> None:
        """Removes a model. Raises FailedPrecondition while its job is making it."""
        request = model_service_pb2.DeleteModelRequest(name=full_name(MODELS, name))
        self._call(self._models.DeleteModel, request)

    def download_model(self, name: str, path: Path, *, onnx: bool = False) -> Path:
        """Writes a model's file to `path`, or into it under the model's id if it is a folder.

        It is a safetensors file, or, with `onnx`, an ONNX one, for runtimes that know nothing of Chainrule; raises
        FailedPrecondition if a layer of the model can't be written so.

        The file appears complete and checked, or not at all. Returns where it is. Raises TransferError if what came is
        not what the model's description says, OSError if it cannot be written.
        """
        model = self.get_model(name)
        target = path / f"{bare_id(model.name)}.{'onnx' if onnx else 'safetensors'}" if path.is_dir() else path
        request = model_service_pb2.DownloadModelRequest(
            name=model.name, format=Model.ONNX if onnx else Model.SAFETENSORS
        )
        stream = self._models.DownloadModel(request, timeout=self._transfer_timeout(model.size_bytes))
        try:
            save_download(model, stream, target)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.address) from error
        finally:
            stream.cancel()
        return target

    def predict(self, name: str, rows: ArrayLike | Mapping[str, ArrayLike]) -> Numbers:
        """What a model makes of some rows (rows, ...), an array of (rows, ...): for classes their logits.

        A model that makes its input of a dataset's columns takes an array for each of them, by name; one of windows
        (windows, length, ...). However many rows there are, they are sent in messages that the service takes, all to
        the same model. Raises InvalidRequest if the model can't take such rows, DatasetFileError if they are none.
        """
        described = self.describe_model(name)
        found = [
            outputs(self._call(self._inference.ModelInfer, request))
            for request in requests(as_columns(rows, described), described)
        ]
        return np.concatenate(found)

    def describe_model(self, name: str) -> ModelMetadataResponse:
        """What a model takes and gives, as the Open Inference Protocol says it."""
        return self._call(self._inference.ModelMetadata, ModelMetadataRequest(name=full_name(MODELS, name)))

    def evaluate_model(
        self,
        name: str,
        dataset: str,
        *,
        input_column: str = "",
        target_column: str = "",
        weight_column: str = "",
        loss: Loss | None = None,
        timeout: float = 600.0,
    ) -> EvaluateModelResponse:
        """Judges a model by all rows of a dataset, which may take `timeout` seconds.

        What is left out is as in the model's job, except that every row counts 1. Raises InvalidRequest if model,
        dataset and loss don't fit together.
        """
        request = model_service_pb2.EvaluateModelRequest(
            name=full_name(MODELS, name),
            dataset=full_name(DATASETS, dataset),
            input_column=input_column,
            target_column=target_column,
            weight_column=weight_column,
            loss=loss,
        )
        return self._call(self._models.EvaluateModel, request, timeout)

    def set_model_alias(self, alias: str, name: str) -> Model:
        """Has an alias (``"production"``) stand for a model from now on, and returns the model.

        The model may be named by another alias: ``set_model_alias("production", "@staging")``.
        """
        request = model_service_pb2.SetModelAliasRequest(name=full_name(MODELS, name), alias=bare_alias(alias))
        return self._call(self._models.SetModelAlias, request)

    def delete_model_alias(self, alias: str) -> None:
        """Removes an alias. Its model stays."""
        request = model_service_pb2.DeleteModelAliasRequest(alias=bare_alias(alias))
        self._call(self._models.DeleteModelAlias, request)

    def _call(
        self,
        method: "grpc.UnaryUnaryMultiCallable[Request, Response]",
        request: Request,
        timeout: float | None = None,
    ) -> Response:
        try:
            return method(request, timeout=timeout or self._timeout)
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.address) from error

    def _transfer_timeout(self, size: int) -> float:
        """Seconds that the transfer of `size` bytes may take."""
        return self._timeout + size / SLOWEST_TRANSFER
