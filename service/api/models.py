"""ModelService."""

import asyncio
import hashlib
import io
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from google.protobuf.empty_pb2 import Empty

from chainrule.v1 import model_service_pb2 as pb
from chainrule.v1 import model_service_pb2_grpc as stubs
from service.api.paging import page
from service.api.streams import with_chunks, with_header
from service.data.datasets import Datasets
from service.errors import AlreadyExists, FailedPrecondition, InvalidArgument, ResourceExhausted, Violations
from service.jobs.jobs import Jobs, new_id
from service.models.aliases import Aliases
from service.models.evaluation import judge
from service.models.files import ModelFile
from service.models.incoming import Incoming
from service.models.onnx.export import export
from service.models.predictor import Predictor
from service.models.registry import Model, Models, cut
from service.training.promotion import Promotion
from service.wire.evaluation import judgement_message, parse_question
from service.wire.model import described_network, input_column, told_origin
from service.wire.names import require_checkpoint, require_id, require_model, require_name
from service.wire.network import model_json, model_network
from service.wire.resources import model_message

GONE = "what had arrived is gone; send the file anew"
"""What becomes of an upload that falls silent."""


class ModelServicer(stubs.ModelServiceServicer):
    """Models over gRPC."""

    def __init__(
        self,
        models: Models,
        jobs: Jobs,
        aliases: Aliases,
        predictor: Predictor,
        datasets: Datasets,
        promotion: Promotion,
    ) -> None:
        self._promotion = promotion
        self._models = models
        self._jobs = jobs
        self._aliases = aliases
        self._predictor = predictor
        self._datasets = datasets

    async def GetModel(self, request: pb.GetModelRequest, context: object) -> pb.Model:  # noqa: ARG002, N802
        return self._message(self._models.get(await self._id(request.name)))

    async def ListModels(self, request: pb.ListModelsRequest, context: object) -> pb.ListModelsResponse:  # noqa: ARG002, N802
        everything = await asyncio.to_thread(self._models.all)
        models, token = page(everything, _creation, self._message, request, newest_first=True)
        return pb.ListModelsResponse(models=models, next_page_token=token)

    async def DownloadModel(  # noqa: N802
        self,
        request: pb.DownloadModelRequest,
        context: object,  # noqa: ARG002
    ) -> AsyncIterator[pb.DownloadModelResponse]:
        model = self._models.get(await self._id(request.name))
        if request.format not in pb.Model.Format.values():
            raise InvalidArgument.of("format", f"has the unknown value {request.format}; SAFETENSORS or ONNX")
        if request.format == pb.Model.ONNX:
            data = await asyncio.to_thread(self._onnx, model)
            chunks, size_bytes, sha256 = cut(io.BytesIO(data)), len(data), hashlib.sha256(data).hexdigest()
        else:
            chunks, size_bytes, sha256 = self._models.chunks(model.id), model.size_bytes, model.sha256
        while chunk := await asyncio.to_thread(next, chunks, None):
            offset, data = chunk
            message = pb.DownloadModelResponse(offset=offset, data=data)
            if offset == 0:
                message.size_bytes, message.sha256 = size_bytes, sha256
            yield message

    async def UploadModel(self, request: AsyncIterator[pb.UploadModelRequest], context: object) -> pb.Model:  # noqa: ARG002, N802
        messages = aiter(request)
        header = (await with_header(messages, GONE)).header
        model_id = await asyncio.to_thread(self._check, header)
        with self._models.receive(header.size_bytes) as upload:
            async for message in with_chunks(messages, GONE):
                await asyncio.to_thread(upload.write, message.chunk.offset, message.chunk.data)
            model = await asyncio.to_thread(self._add, model_id, header, upload)
        return model_message(model)

    async def CreateModel(self, request: pb.CreateModelRequest, context: object) -> pb.Model:  # noqa: ARG002, N802
        job_id, which = require_checkpoint(request.checkpoint, "checkpoint")
        model_id = require_id(request.model_id, "model_id") if request.model_id else ""
        return self._message(await asyncio.to_thread(self._promotion.make, job_id, which, model_id))

    async def DeleteModel(self, request: pb.DeleteModelRequest, context: object) -> Empty:  # noqa: ARG002, N802
        model_id = require_name(request.name, "models")
        if self._jobs.has(model_id) and not self._jobs.get(model_id).has_ended:
            raise FailedPrecondition(
                f"jobs/{model_id} is just making {request.name}; cancel that first, or wait for its end",
                reason="MODEL_IN_USE",
            )
        if aliases := self._aliases.of(model_id):
            raise FailedPrecondition(
                f"{request.name} is what models/@{aliases[0]} stands for; set that alias to another model first",
                reason="MODEL_IN_USE",
            )
        await asyncio.to_thread(self._models.delete, model_id)
        return Empty()

    def _onnx(self, model: Model) -> bytes:
        network = model_network(model.layers_json, model.input_shape)
        preparation = model.origin.preparation_json if model.origin else ""
        return export(network, self._models.parameters(model.id, network), model.input_column, preparation)

    def _check(self, header: pb.UploadModelHeader) -> str:
        """The id that the model is to have. Raises what is wrong with the header."""
        model_id = require_id(header.model_id, "header.model_id") if header.model_id else new_id()
        violations = Violations()
        if header.size_bytes < 1:
            violations.add("header.size_bytes", f"is {header.size_bytes}; must be the file's size, above 0")
        if len(header.sha256) != 64 or not set(header.sha256.lower()) <= set("0123456789abcdef"):
            violations.add("header.sha256", "must be the file's SHA-256: 64 hexadecimal digits")
        if header.HasField("network"):
            described_network(header, {})
        elif header.input_shape:
            violations.add("header.network", "is missing; input_shape comes with the network")
        violations.raise_any()
        if header.size_bytes > self._models.most_bytes:
            raise ResourceExhausted(
                f"the file has {header.size_bytes:,} bytes; a model may have {self._models.most_bytes:,}",
                reason="MODEL_TOO_LARGE",
            )
        if self._jobs.has(model_id):
            raise AlreadyExists(
                f"models/{model_id} is the model of jobs/{model_id}; choose another id", reason="MODEL_EXISTS"
            )
        self._models.check_free(model_id)
        return model_id

    def _add(self, model_id: str, header: pb.UploadModelHeader, upload: Incoming) -> Model:
        upload.finish(header.sha256)
        file = ModelFile(upload.path)
        network = described_network(header, file.metadata)
        column, origin = input_column(header, file.metadata), told_origin(file.metadata, network.input_shape)
        params = file.parameters(network)
        layers = model_json(network.layers, network.padding, network.traits)
        return self._models.add_uploaded(model_id, network, layers, params, datetime.now(UTC), column, origin)

    async def EvaluateModel(self, request: pb.EvaluateModelRequest, context: object) -> pb.EvaluateModelResponse:  # noqa: ARG002, N802
        begin = time.monotonic()
        found = await self._predictor.model(await self._id(request.name))
        question = parse_question(request, found.model)
        judgement = await self._predictor.evaluate(
            lambda stop: judge(found, question, self._datasets, stop, self._predictor.ask)
        )
        return judgement_message(found.model, judgement, time.monotonic() - begin)

    async def SetModelAlias(self, request: pb.SetModelAliasRequest, context: object) -> pb.Model:  # noqa: ARG002, N802
        alias, reference = require_id(request.alias, "alias"), require_model(request.name)
        model_id = await asyncio.to_thread(self._aliases.set, alias, reference)
        return self._message(self._models.get(model_id))

    async def DeleteModelAlias(self, request: pb.DeleteModelAliasRequest, context: object) -> Empty:  # noqa: ARG002, N802
        await asyncio.to_thread(self._aliases.delete, require_id(request.alias, "alias"))
        return Empty()

    async def _id(self, name: str) -> str:
        """The id of the model that a request names. Raises InvalidArgument or NotFound."""
        reference = require_model(name)
        return await asyncio.to_thread(self._aliases.resolve, reference) if "@" in reference else reference

    def _message(self, model: Model) -> pb.Model:
        return model_message(model, self._aliases.of(model.id))


def _creation(model: Model) -> str:
    """Sorts models by age."""
    return f"{model.created.isoformat(timespec='microseconds')} {model.id}"
