"""Chainrule: distributed backpropagation as a service. This package is the client; it needs no server code.

from chainrule import Client

with Client("127.0.0.1:50051") as client:
    for job in client.jobs():
        print(job.name, job.state)
"""

from chainrule.client import Client
from chainrule.errors import (
    AlreadyExists,
    ChainruleError,
    CoordinatorError,
    DatasetFileError,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidRequest,
    JobFileError,
    NotFound,
    SampleError,
    ServiceError,
    TransferError,
    Unavailable,
    Violation,
)

__all__ = [
    "AlreadyExists",
    "ChainruleError",
    "Client",
    "CoordinatorError",
    "DatasetFileError",
    "DeadlineExceeded",
    "FailedPrecondition",
    "InvalidRequest",
    "JobFileError",
    "NotFound",
    "SampleError",
    "ServiceError",
    "TransferError",
    "Unavailable",
    "Violation",
]
