"""Chainrule: distributed backpropagation as a service. This package is the client; it needs no server code.

from chainrule import Client

with Client("127.0.0.1:50051") as client:
    for job in client.jobs():
        print(job.name, job.state)
"""

import os

# gRPC would write a line about every failed handshake, which the error says, too. It looks as it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from chainrule.client import Client
from chainrule.errors import (
    AlreadyExists,
    ChainruleError,
    CoordinatorError,
    CredentialsError,
    DatasetFileError,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidRequest,
    JobFileError,
    NotFound,
    PermissionDenied,
    SampleError,
    ServiceError,
    TransferError,
    Unauthenticated,
    Unavailable,
    Violation,
)

__all__ = [
    "AlreadyExists",
    "ChainruleError",
    "Client",
    "CoordinatorError",
    "CredentialsError",
    "DatasetFileError",
    "DeadlineExceeded",
    "FailedPrecondition",
    "InvalidRequest",
    "JobFileError",
    "NotFound",
    "PermissionDenied",
    "SampleError",
    "ServiceError",
    "TransferError",
    "Unauthenticated",
    "Unavailable",
    "Violation",
]
