"""The gRPC channel to a coordinator: its limits, and how fast it notices that the other side is gone."""

import ipaddress
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc

from chainrule.credentials import Credentials
from chainrule.errors import CredentialsError

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
TLS = "grpcs://"


_REPEATABLE = {
    "chainrule.v1.TrainingService": (
        "CreateTrainingJob",  # by its request_id
        "GetTrainingJob",
        "ListTrainingJobs",
        "ListCheckpoints",
    ),
    "chainrule.v1.DatasetService": ("QueryUpload", "GetDataset", "ListDatasets"),
    "chainrule.v1.ModelService": ("GetModel", "ListModels", "SetModelAlias", "EvaluateModel"),
    "inference.GRPCInferenceService": ("ModelMetadata", "ModelInfer"),
}
"""Calls that do no more when they are made twice. Pausing, deleting and the like aren't: the second is refused."""

SERVICE_CONFIG: dict[str, Any] = {
    "methodConfig": [
        {
            "name": [{"service": of, "method": method} for of, methods in _REPEATABLE.items() for method in methods],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 3,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
"""Has gRPC try again what may be tried again, within the call's deadline: a coordinator that starts anew is seldom
noticed. Watches and uploads go on by themselves."""


def open_channel(address: str, credentials: Credentials) -> grpc.Channel:
    """A channel to ``host:port``, over TLS to ``grpcs://host:port``. Raises CredentialsError.

    Connects when first used, and again whenever the connection breaks.
    """
    target = address.removeprefix(TLS)
    options = [
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        # Only while a call is open: a watched job may be silent for long, and so may a machine that was unplugged.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 0),
        # gRPC's own wait between attempts grows to two minutes; a coordinator restarts in seconds.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1_000),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # http_proxy is often set without no_proxy, and a proxy cannot reach this machine's own addresses.
        ("grpc.enable_http_proxy", 0 if _is_local(target) else 1),
        ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    ]
    if address.startswith(TLS):
        tls = grpc.ssl_channel_credentials(credentials.ca, credentials.key, credentials.cert)
        channel = grpc.secure_channel(target, tls, options)
    elif credentials.token and not _is_local(target):
        raise CredentialsError(
            f"there is a token, and without TLS all on the way to {target} could read it: use {TLS}{target}"
        )
    else:
        channel = grpc.insecure_channel(target, options)
    return grpc.intercept_channel(channel, _Bearer(credentials.token)) if credentials.token else channel


def _is_local(target: str) -> bool:
    host = target.rpartition(":")[0]
    if host == "localhost" or target.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:  # a name: "127.example.org" may be anyone's
        return False


class _Details(NamedTuple):
    """What gRPC wants to know of a call."""

    method: str
    timeout: float | None
    metadata: list[tuple[str, str | bytes]]
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class _Bearer(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Sends a token with every call. gRPC's own way to do so refuses to within one machine, where there is no TLS."""

    def __init__(self, token: str) -> None:
        self._header = ("authorization", f"Bearer {token}")

    def _call(self, continuation: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
        metadata = [*(details.metadata or ()), self._header]
        return continuation(
            _Details(
                details.method,
                details.timeout,
                metadata,
                details.credentials,
                details.wait_for_ready,
                details.compression,
            ),
            request,
        )

    intercept_unary_unary: Any = _call
    intercept_unary_stream: Any = _call
    intercept_stream_unary: Any = _call
    intercept_stream_stream: Any = _call
