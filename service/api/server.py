"""The gRPC server: our services, the standard health and reflection services, and the limits that hold for all."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from chainrule.inference import open_inference_pb2, open_inference_pb2_grpc
from chainrule.v1 import (
    dataset_service_pb2,
    dataset_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    training_service_pb2,
    training_service_pb2_grpc,
)
from service.api.calls import Calls, CallsInterceptor
from service.api.datasets import DatasetServicer
from service.api.errors import ErrorInterceptor
from service.api.inference import InferenceServicer
from service.api.models import ModelServicer
from service.api.training import TrainingServicer

LARGEST_MESSAGE = 4 << 20
MOST_CALLS = 1_000
GRACE_SECONDS = 2.0

OPTIONS = (
    # Without this a second server would take the same port in silence, and half of the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)

SERVICES = tuple(
    module.DESCRIPTOR.services_by_name[name]
    for module, name in (
        (training_service_pb2, "TrainingService"),
        (dataset_service_pb2, "DatasetService"),
        (model_service_pb2, "ModelService"),
        (open_inference_pb2, "GRPCInferenceService"),
        (health_pb2, "Health"),
        (reflection_pb2, "ServerReflection"),
    )
)
"""The descriptors of all that is served: ours, health, reflection."""


class AddressTaken(Exception):
    """The address to listen at can't be had."""


class Pools:
    """Several descriptor pools, asked one after the other: the Open Inference Protocol has one of its own."""

    def __init__(self, *pools: Any) -> None:
        self._pools = pools

    def __getattr__(self, find: str) -> Any:
        """A method of the first pool that finds something; raises KeyError where none does."""

        def ask(*arguments: Any) -> Any:
            for pool in self._pools[:-1]:
                try:
                    return getattr(pool, find)(*arguments)
                except KeyError:
                    continue
            return getattr(self._pools[-1], find)(*arguments)

        return ask


@asynccontextmanager
async def serving(
    address: str,
    training: TrainingServicer,
    datasets: DatasetServicer,
    models: ModelServicer,
    inference: InferenceServicer,
    calls: Calls,
    most_bytes: int = LARGEST_MESSAGE,
) -> AsyncIterator[int]:
    """Serves while the context is open; gives the port. `calls`, of SERVICES, counts.

    A message has at most `most_bytes`. Raises AddressTaken.
    """
    limits = [("grpc.max_receive_message_length", most_bytes), ("grpc.max_send_message_length", most_bytes)]
    server = grpc.aio.server(
        interceptors=(CallsInterceptor(calls), ErrorInterceptor()),
        options=(*OPTIONS, *limits),
        maximum_concurrent_rpcs=MOST_CALLS,
    )
    training_service_pb2_grpc.add_TrainingServiceServicer_to_server(training, server)
    dataset_service_pb2_grpc.add_DatasetServiceServicer_to_server(datasets, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(models, server)
    open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(inference, server)
    healthy = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    known = Pools(training_service_pb2.DESCRIPTOR.pool, open_inference_pb2.DESCRIPTOR.pool)
    names = [service.full_name for service in SERVICES]
    reflection.enable_server_reflection(names, server, known)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise AddressTaken(f"can't listen at {address}: it is taken, or not an address of this machine") from error
    await server.start()
    for name in ("", *names):
        await healthy.set(name, health_pb2.HealthCheckResponse.SERVING)
    try:
        yield port
    finally:
        await healthy.enter_graceful_shutdown()
        await server.stop(GRACE_SECONDS)
