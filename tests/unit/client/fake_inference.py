"""Predictions in small, by a rule that needs no model."""

from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
import numpy as np

from chainrule.inference import open_inference_pb2 as pb
from chainrule.inference import open_inference_pb2_grpc
from tests.unit.client.refusing import not_found, refuse


@dataclass
class FakeInference(open_inference_pb2_grpc.GRPCInferenceServiceServicer):
    """Takes rows of two numbers and gives one of three, of which the first is their sum and the others are 0 and 1."""

    named: Callable[[str], str]
    """The name of the model that a name stands for; "" if there is none."""
    batches: list[int] = field(default_factory=list)
    """How many rows came in each request."""

    def ServerLive(  # noqa: N802
        self, request: pb.ServerLiveRequest, context: grpc.ServicerContext
    ) -> pb.ServerLiveResponse:
        raise NotImplementedError

    def ServerReady(  # noqa: N802
        self, request: pb.ServerReadyRequest, context: grpc.ServicerContext
    ) -> pb.ServerReadyResponse:
        raise NotImplementedError

    def ServerMetadata(  # noqa: N802
        self, request: pb.ServerMetadataRequest, context: grpc.ServicerContext
    ) -> pb.ServerMetadataResponse:
        raise NotImplementedError

    def ModelReady(  # noqa: N802
        self, request: pb.ModelReadyRequest, context: grpc.ServicerContext
    ) -> pb.ModelReadyResponse:
        raise NotImplementedError

    def ModelMetadata(  # noqa: N802
        self, request: pb.ModelMetadataRequest, context: grpc.ServicerContext
    ) -> pb.ModelMetadataResponse:
        name = self.named(request.name) or not_found(context, request.name)
        response = pb.ModelMetadataResponse(name=name.removeprefix("models/"), versions=["1"])
        response.inputs.add(name="x", datatype="FP32", shape=[-1, 2])
        response.outputs.add(name="output", datatype="FP32", shape=[-1, 3])
        return response

    def ModelInfer(  # noqa: N802
        self, request: pb.ModelInferRequest, context: grpc.ServicerContext
    ) -> pb.ModelInferResponse:
        shape = list(request.inputs[0].shape)
        if shape[1:] != [2]:
            wrong = {"inputs[0].shape": f"is {shape}; the model takes [-1, 2]"}
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "1 field is wrong", "INVALID_FIELD", wrong)
        rows = np.frombuffer(request.raw_input_contents[0], "<f4").reshape(shape)
        self.batches.append(len(rows))
        outputs = np.tile(np.array([0, 0, 1], "<f4"), (len(rows), 1))
        outputs[:, 0] = rows.sum(axis=1)
        response = pb.ModelInferResponse(raw_output_contents=[outputs.tobytes()])
        response.outputs.add(name="output", datatype="FP32", shape=outputs.shape)
        return response
