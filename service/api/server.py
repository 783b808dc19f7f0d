"""The gRPC server: our services, the standard health and reflection services, and the limits that hold for all."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
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
from service.access.certificates import Certificates
from service.access.watched import Watched
from service.api.calls import Calls, CallsInterceptor
from service.api.datasets import DatasetServicer
from service.api.errors import ErrorInterceptor
from service.api.guard import Guard
from service.api.inference import InferenceServicer
from service.api.models import ModelServicer
from service.api.training import TrainingServicer

LARGEST_MESSAGE = 4 << 20
LARGEST_METADATA = 16 << 10
MOST_CALLS = 1_000
"""At a time, of all callers."""
GRACE_SECONDS = 2.0

OPTIONS = (
    # Without this a second server would take the same port in silence, and half of the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    # A connection costs memory and a descriptor: one that doesn't finish its handshake, doesn't answer, or has had no
    # call for long is closed. Clients that are still there connect again with their next call.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.max_connection_idle_ms", 300_000),
    # The headers of a call. Without the first, gRPC begins to refuse some of them at random from 8 KiB on.
    ("grpc.max_metadata_size", LARGEST_METADATA),
    ("grpc.absolute_max_metadata_size", LARGEST_METADATA),
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
    guard: Guard | None = None,
    certificates: Watched[Certificates] | None = None,
) -> AsyncIterator["Serving"]:
    """Serves while the context is open. `calls`, of SERVICES, counts. Raises AddressTaken.

    A message has at most `most_bytes`. Without a guard everyone may do everything, without certificates everyone on the
    way may read it.
    """
    limits = [("grpc.max_receive_message_length", most_bytes), ("grpc.max_send_message_length", most_bytes)]
    server = grpc.aio.server(
        # What the guard refuses is told as any other error is, and counts as any other call.
        interceptors=(CallsInterceptor(calls), ErrorInterceptor(), *([guard] if guard else [])),
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
        if certificates is None:
            port = server.add_insecure_port(address)
        else:
            # Kept until the server has stopped: gRPC asks it at every handshake, and doesn't hold it itself.
            credentials = _credentials(certificates)
            port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise AddressTaken(f"can't listen at {address}: it is taken, or not an address of this machine") from error
    await server.start()
    for name in ("", *names):
        await healthy.set(name, health_pb2.HealthCheckResponse.SERVING)
    try:
        yield Serving(port, healthy, inference, guard)
    finally:
        await healthy.enter_graceful_shutdown()
        await server.stop(GRACE_SECONDS)


@dataclass(frozen=True)
class Serving:
    """A server that is up."""

    port: int
    _health: health.aio.HealthServicer
    _inference: InferenceServicer
    _guard: Guard | None

    async def drain(self) -> None:
        """Says that it isn't healthy any more, for whoever spreads calls, and refuses what would change something.

        Calls that are under way go on, and what is to be read can be read, until it stops.
        """
        if self._guard is not None:
            self._guard.drain()
        self._inference.ready = False
        await self._health.enter_graceful_shutdown()


def _credentials(certificates: Watched[Certificates]) -> grpc.ServerCredentials:
    """What gRPC speaks TLS with; at every handshake it looks whether there is something newer."""
    used = certificates.value()

    def configuration(of: Certificates) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(of.key, of.chain)], of.client_ca)

    # gRPC documents None for "as before", which the type stubs don't have.
    def newer() -> Any:
        nonlocal used
        newest = certificates.value()
        if newest is used:
            return None
        used = newest
        return configuration(newest)

    return grpc.dynamic_ssl_server_credentials(
        configuration(used), newer, require_client_authentication=used.client_ca is not None
    )
