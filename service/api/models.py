"""ModelService."""

import asyncio
from collections.abc import AsyncIterator

from chainrule.v1 import model_service_pb2 as pb
from chainrule.v1 import model_service_pb2_grpc as stubs
from service.api.paging import page
from service.models.registry import Model, Models
from service.wire.names import require_name
from service.wire.resources import model_message


class ModelServicer(stubs.ModelServiceServicer):
    """Models over gRPC."""

    def __init__(self, models: Models) -> None:
        self._models = models

    async def GetModel(self, request: pb.GetModelRequest, context: object) -> pb.Model:  # noqa: ARG002, N802
        return model_message(self._models.get(require_name(request.name, "models")))

    async def ListModels(self, request: pb.ListModelsRequest, context: object) -> pb.ListModelsResponse:  # noqa: ARG002, N802
        everything = await asyncio.to_thread(self._models.all)
        models, token = page(everything, _creation, model_message, request, newest_first=True)
        return pb.ListModelsResponse(models=models, next_page_token=token)

    async def DownloadModel(  # noqa: N802
        self,
        request: pb.DownloadModelRequest,
        context: object,  # noqa: ARG002
    ) -> AsyncIterator[pb.DownloadModelResponse]:
        chunks = self._models.chunks(require_name(request.name, "models"))
        while chunk := await asyncio.to_thread(next, chunks, None):
            yield pb.DownloadModelResponse(offset=chunk[0], data=chunk[1])


def _creation(model: Model) -> str:
    """Sorts models by age."""
    return f"{model.created.isoformat(timespec='microseconds')} {model.id}"
