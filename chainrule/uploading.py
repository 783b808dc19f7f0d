"""An upload that outlives the connection: when the stream breaks, the next one goes on after what has arrived."""

import time
from collections.abc import Callable, Iterator

import grpc

from chainrule.errors import from_rpc_error
from chainrule.transfer import Upload
from chainrule.v1.dataset_service_pb2 import Dataset, QueryUploadRequest, QueryUploadResponse, UploadDatasetRequest

FIRST_BACKOFF, LONGEST_BACKOFF = 0.1, 2.0  # seconds

PASSING = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED, grpc.StatusCode.CANCELLED})
"""Nobody is there, another stream of the same upload is at work, or the service ended this one: all may pass."""


def send_all(
    send: Callable[[Iterator[UploadDatasetRequest]], Dataset],
    query: Callable[[QueryUploadRequest], QueryUploadResponse],
    upload: Upload[UploadDatasetRequest],
    key: QueryUploadRequest,
    address: str,
    patience: float,
) -> Dataset:
    """Sends an upload, in as many streams as it takes, and returns the dataset.

    Raises a ServiceError when nothing new has arrived for `patience` seconds, at once for an error that does not pass
    by itself or if nobody answers in the first place; and whatever went wrong on this side.
    """
    try:
        committed = query(key).committed_bytes
    except grpc.RpcError as error:
        raise from_rpc_error(error, address) from error
    farthest, since = committed, time.monotonic()
    backoff = FIRST_BACKOFF
    while True:
        try:
            return send(upload.messages(committed))
        except grpc.RpcError as error:
            if upload.failure is not None:
                raise upload.failure from error
            if error.code() not in PASSING:
                raise from_rpc_error(error, address) from error
            broken = error
        while True:
            if time.monotonic() - since >= patience:
                raise from_rpc_error(broken, address) from broken
            time.sleep(backoff)
            backoff = min(2 * backoff, LONGEST_BACKOFF)
            try:
                committed = query(key).committed_bytes
                break
            except grpc.RpcError as error:
                if error.code() not in PASSING:
                    raise from_rpc_error(error, address) from error
                broken = error
        if committed > farthest:
            farthest, since, backoff = committed, time.monotonic(), FIRST_BACKOFF
