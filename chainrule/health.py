"""Whether a coordinator is up and ready, by gRPC's standard health protocol. It asks for no token."""

import grpc

from chainrule.channel import open_channel
from chainrule.credentials import find_credentials
from chainrule.errors import Unavailable, from_rpc_error

SERVING = b"\x08\x01"
"""The answer that it serves: field 1 is 1. The empty request asks for the service as a whole."""


def check_health(address: str, timeout: float) -> None:
    """Returns if the service at `address` is ready. Raises Unavailable if it isn't, or another ServiceError."""
    with open_channel(address, find_credentials()) as channel:
        check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            answer = check(b"", timeout=timeout)
        except grpc.RpcError as error:
            raise from_rpc_error(error, address) from error
    if answer != SERVING:
        raise Unavailable(f"{address} is not ready", grpc.StatusCode.UNAVAILABLE, "NOT_SERVING")
