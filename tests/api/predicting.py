"""A model that a coordinator has trained, and requests to it in the Open Inference Protocol."""

from typing import Any

import numpy as np

from chainrule.inference import open_inference_pb2 as pb
from chainrule.inference import open_inference_pb2_grpc as stubs
from tests.api.running import SECONDS, Service
from worker.arrays import Array


def infer_request(model: str, rows: Array, **changes: Any) -> pb.ModelInferRequest:
    """A request with float32 rows in raw bytes, but for the fields of its one input that are changed."""
    request = pb.ModelInferRequest(model_name=model, raw_input_contents=[rows.astype("<f4").tobytes()])
    request.inputs.add(**{"name": "x", "datatype": "FP32", "shape": rows.shape, **changes})
    return request


def infer(service: Service, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    return stubs.GRPCInferenceServiceStub(service.channel).ModelInfer(request, timeout=SECONDS)


def outputs(response: pb.ModelInferResponse) -> Array:
    """The numbers of a response, (rows, ...)."""
    tensor = response.outputs[0]
    raw = response.raw_output_contents
    numbers: Array = np.frombuffer(raw[0], "<f4") if raw else np.array(tensor.contents.fp32_contents, np.float32)
    return numbers.reshape(tensor.shape)
