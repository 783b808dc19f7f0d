"""What a client does with models, predictions included."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import grpc
import numpy as np
from numpy.typing import ArrayLike

from chainrule.connection import Connection
from chainrule.errors import from_rpc_error
from chainrule.inference.open_inference_pb2 import ModelMetadataRequest, ModelMetadataResponse
from chainrule.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from chainrule.predicting import Numbers, as_columns, outputs, requests
from chainrule.resources import DATASETS, JOBS, MODELS, bare_alias, bare_id, full_name
from chainrule.transfer import Progress, Upload, save_download
from chainrule.v1 import model_service_pb2
from chainrule.v1.model_service_pb2 import EvaluateModelResponse, Model, UploadModelHeader, UploadModelRequest
from chainrule.v1.model_service_pb2_grpc import ModelServiceStub
from chainrule.v1.network_pb2 import Loss, Network

LATEST = "@latest"


class ModelCalls(Connection):
    """The calls of ModelService and of the Open Inference Protocol."""

    @cached_property
    def _models(self) -> ModelServiceStub:
        return ModelServiceStub(self._channel)

    @cached_property
    def _inference(self) -> GRPCInferenceServiceStub:
        return GRPCInferenceServiceStub(self._channel)

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

    def create_model(self, job: str, step: int | str = LATEST, model_id: str = "") -> Model:
        """Makes a model of a job's checkpoint, whatever became of the job, and returns it.

        `step` is one that `checkpoints` tells of, or "@latest" or "@best". Without an id it is called after job and
        step. Repeating the call returns the same model. Raises NotFound if there is no such checkpoint, AlreadyExists
        if the id is another model's.
        """
        checkpoint = f"{full_name(JOBS, job)}/checkpoints/{step}"
        request = model_service_pb2.CreateModelRequest(checkpoint=checkpoint, model_id=bare_id(model_id))
        return self._call(self._models.CreateModel, request)

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
        return self._call_again(self._models.SetModelAlias, request)

    def delete_model_alias(self, alias: str) -> None:
        """Removes an alias. Its model stays."""
        request = model_service_pb2.DeleteModelAliasRequest(alias=bare_alias(alias))
        self._call(self._models.DeleteModelAlias, request)
