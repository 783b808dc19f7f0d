"""GRPCInferenceService: the Open Inference Protocol, for whoever speaks it already."""

import asyncio
import math
import time
from collections.abc import Sequence
from importlib.metadata import version

from chainrule.inference import open_inference_pb2 as pb
from chainrule.inference import open_inference_pb2_grpc as stubs
from service.data.features import FittedNumbers
from service.data.preparation import Table
from service.errors import InvalidArgument, NotFound, ServiceError
from service.models.aliases import Aliases
from service.models.loaded import LoadedModel
from service.models.predictor import Predictor
from service.wire.names import require_model
from service.wire.tensors import CLASS, OUTPUT, asked_outputs, datatype_of, infer_response, input_rows, input_table
from worker.arrays import Array, Shape

PLATFORM = "chainrule"
VERSION = "1"
"""Of every model, since models never change."""

ENVELOPE_BYTES = 4_096
"""What a response may take beside its numbers: names, shapes, the request's id."""

LONGEST_ID = 1_000


class InferenceServicer(stubs.GRPCInferenceServiceServicer):
    """Predictions over gRPC."""

    def __init__(self, predictor: Predictor, aliases: Aliases, most_bytes: int) -> None:
        """A response has at most `most_bytes`."""
        self._predictor = predictor
        self._aliases = aliases
        self._most_bytes = most_bytes
        self.ready = True
        """Whether clients should send their requests here."""

    async def ServerLive(self, request: pb.ServerLiveRequest, context: object) -> pb.ServerLiveResponse:  # noqa: ARG002, N802
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: object) -> pb.ServerReadyResponse:  # noqa: ARG002, N802
        return pb.ServerReadyResponse(ready=self.ready)

    async def ModelReady(self, request: pb.ModelReadyRequest, context: object) -> pb.ModelReadyResponse:  # noqa: ARG002, N802
        try:
            await self._model(request.name, request.version, "name")
        except (NotFound, InvalidArgument):
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, context: object) -> pb.ServerMetadataResponse:  # noqa: ARG002, N802
        return pb.ServerMetadataResponse(name=PLATFORM, version=version("chainrule"))

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: object) -> pb.ModelMetadataResponse:  # noqa: ARG002, N802
        found = await self._model(request.name, request.version, "name")
        shape = (-1, *found.network.output_shape[:-1])
        tensor, datatype = pb.ModelMetadataResponse.TensorMetadata, datatype_of(found.params.dtype)
        return pb.ModelMetadataResponse(
            name=found.model.id,
            versions=[VERSION],
            platform=PLATFORM,
            inputs=[
                tensor(name=name, datatype=datatype, shape=shape) for name, datatype, shape in described_inputs(found)
            ],
            outputs=[
                tensor(name=OUTPUT, datatype=datatype, shape=(-1, *found.network.output_shape)),
                *([tensor(name=CLASS, datatype="BYTES", shape=shape)] if found.names_classes else []),
            ],
        )

    async def ModelInfer(self, request: pb.ModelInferRequest, context: object) -> pb.ModelInferResponse:  # noqa: ARG002, N802
        begin, outcome, rows = time.perf_counter(), "failed", 0
        try:
            response, rows = await self._infer(request)
            outcome = "answered"
        except (ServiceError, asyncio.CancelledError) as error:
            outcome = "refused" if isinstance(error, ServiceError) else "cancelled"
            raise
        else:
            return response
        finally:
            self._predictor.usage.count(outcome, time.perf_counter() - begin, rows)

    async def _infer(self, request: pb.ModelInferRequest) -> tuple[pb.ModelInferResponse, int]:
        found = await self._model(request.model_name, request.model_version, "model_name")
        if len(request.id) > LONGEST_ID:
            raise InvalidArgument.of("id", f"has {len(request.id):,} characters; must have at most {LONGEST_ID:,}")
        asked = asked_outputs(request, (OUTPUT, CLASS) if found.names_classes else (OUTPUT,))
        rows: Array | Table
        if found.preparation and found.preparation.inputs:
            rows = input_table(request, found.preparation)
        else:
            rows = input_rows(request, found.model.input_column, found.network.input_shape)
        row_bytes = found.params.itemsize * math.prod(found.network.output_shape)
        if CLASS in asked:
            row_bytes += math.prod(found.network.output_shape[:-1]) * (8 + _longest(found.model.classes))
        if len(rows) * row_bytes > self._most_bytes - ENVELOPE_BYTES:
            most = (self._most_bytes - ENVELOPE_BYTES) // row_bytes
            raise InvalidArgument.of(
                "inputs[0].shape",
                f"has {len(rows):,} rows, whose outputs take {len(rows) * row_bytes:,} bytes; "
                f"a response has room for {most:,} rows",
            )
        outputs = await self._predictor.predict(found, rows)
        given = {OUTPUT: outputs, **({CLASS: found.named_classes(outputs)} if CLASS in asked else {})}
        return infer_response(request, found.model.id, VERSION, {name: given[name] for name in asked}), len(rows)

    async def _model(self, name: str, asked: str, field: str) -> LoadedModel:
        """The model that a request is about. Raises NotFound or InvalidArgument."""
        reference = require_model(name if name.startswith("models/") else f"models/{name}" if name else "", field)
        model_id = await asyncio.to_thread(self._aliases.resolve, reference) if "@" in reference else reference
        found = await self._predictor.model(model_id)
        if asked not in ("", VERSION):
            raise NotFound(f"models/{model_id} in version {asked[:20]!r}; models never change: leave the version out")
        return found


def _longest(names: Sequence[str]) -> int:
    """Of names, in bytes."""
    return max(len(name.encode()) for name in names)


def described_inputs(found: LoadedModel) -> list[tuple[str, str, Shape]]:
    """What a model takes: name, datatype and shape of each tensor, one for every column if it prepares them."""
    if found.preparation is None or not found.preparation.inputs:
        return [(found.model.input_column, datatype_of(found.params.dtype), (-1, *found.network.input_shape))]
    described: dict[str, tuple[str, str, Shape]] = {}
    windows = found.preparation.windows
    long = (windows.length,) if windows else ()
    for part in found.preparation.inputs:
        wide = (part.width,) if isinstance(part, FittedNumbers) and part.width > 1 else ()
        described.setdefault(part.column, (part.column, "BYTES" if part.takes_text else "FP64", (-1, *long, *wide)))
    return list(described.values())
