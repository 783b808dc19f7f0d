"""What can go wrong for a user of Chainrule, and how a gRPC error becomes one of these.

    ChainruleError
    +-- ServiceError            the service answered a call with an error: code, reason, violations
    |   +-- InvalidRequest      a field of the request is wrong; the violations name it
    |   +-- NotFound            there is no such job, dataset or model
    |   +-- AlreadyExists       there is one of that name already
    |   +-- FailedPrecondition  the request is fine, but not in the state that things are in
    |   +-- Aborted             it was changed by others since it had the etag that was sent
    |   +-- Unauthenticated     the service wants a token, and got none that it knows
    |   +-- PermissionDenied    the token's principal may not do this
    |   +-- Unavailable         nobody answers at the address
    |   +-- DeadlineExceeded    no answer within the call's deadline
    +-- CredentialsError        a token, a certificate or a key can't be used
    +-- DatasetFileError        a file or an array cannot be a dataset's column
    +-- TransferError           a file arrived, but not the one that was announced
    +-- JobFileError            a job file cannot be read; the violations name the fields
    +-- SampleError             a sample dataset cannot be made
    +-- CoordinatorError        an embedded coordinator did not start, or died

Every message is written for people: it names the thing, what was wrong with it and, where known, what would be right.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import grpc
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status


@dataclass(frozen=True)
class Violation:
    """A wrong field: its path, like ``network.layers[2].dense.units``, and a sentence that says what would be right."""

    field: str
    description: str

    def __str__(self) -> str:
        return f"{self.field}: {self.description}" if self.field else self.description


class ChainruleError(Exception):
    """The root: catch this to catch them all."""


class ServiceError(ChainruleError):
    """The service answered a call with an error.

    Attributes:
        code: the gRPC status code.
        reason: the service's machine-readable reason in upper case; empty if it gave none.
        violations: the wrong fields, if the request was at fault.
    """

    def __init__(
        self, message: str, code: grpc.StatusCode, reason: str = "", violations: Iterable[Violation] = ()
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.violations = tuple(violations)


class InvalidRequest(ServiceError):
    """A field of the request is wrong."""


class NotFound(ServiceError):
    """There is no resource of that name."""


class AlreadyExists(ServiceError):
    """There is a resource of that name already."""


class FailedPrecondition(ServiceError):
    """The request would be fine in another state, as cancelling is for a job that has not ended."""


class Aborted(ServiceError):
    """Somebody else was in the way: it has another etag by now, or an upload was overtaken. Look again, and decide."""


class Unauthenticated(ServiceError):
    """The service wants a token, and got none that it knows."""


class PermissionDenied(ServiceError):
    """The token's principal may not do this: its scope is too small, or the resource is another's."""


class Unavailable(ServiceError):
    """Nobody answers at the address, or the one who does is about to go."""


class DeadlineExceeded(ServiceError):
    """There was no answer in time. Whether the service did what was asked is not known."""


class CredentialsError(ChainruleError):
    """A token, a certificate or a key can't be used."""


class DatasetFileError(ChainruleError):
    """A file or an array cannot be a column of a dataset."""


class TransferError(ChainruleError):
    """A downloaded file is not the one that the service described."""


class JobFileError(ChainruleError):
    """A job file cannot be read.

    Attributes:
        violations: the wrong fields, if the file could be parsed at all.
    """

    def __init__(self, message: str, violations: Iterable[Violation] = ()) -> None:
        self.violations = tuple(violations)
        super().__init__("; ".join([message, *map(str, self.violations)]))
        self.headline = message


class SampleError(ChainruleError):
    """A sample dataset cannot be made."""


class CoordinatorError(ChainruleError):
    """An embedded coordinator did not start, or died."""


def from_rpc_error(error: grpc.RpcError, address: str) -> ServiceError:
    """The error of this module that says the same as gRPC's, for a call to the service at `address`."""
    code, message = error.code(), error.details() or ""
    reason, violations = _details(cast(grpc.Call, error))  # every error of a call is that call, too
    if code is grpc.StatusCode.UNAVAILABLE and not reason:
        # The text is then gRPC's own, about sockets; only the service's own texts are for people.
        message = _away(message, address)
    elif code is grpc.StatusCode.DEADLINE_EXCEEDED and not reason:
        message = f"the coordinator at {address} did not answer in time"
    elif not message:
        message = f"the coordinator at {address} answered {code.name} without saying why"
    return _class_of(code)(message, code, reason, violations)


def _away(text: str, address: str) -> str:
    """What keeps us from the coordinator, by what gRPC says about it."""
    host = address.removeprefix("grpcs://")
    for sign, message in (
        ("certificate has expired", f"the certificate of {host} has expired; whoever runs it must renew it"),
        ("not yet valid", f"the certificate of {host} isn't valid yet; is the clock of this machine right?"),
        ("ostname", f"the certificate of {host} is for another host name; use the name that it is for"),
        ("not in peer certificate", f"the certificate of {host} is for another host name; use the name that it is for"),
        (
            "CERTIFICATE_VERIFY_FAILED",
            f"the certificate of {host} is signed by nobody who is trusted here; "
            "if it should be, name a file with the signer's certificate by CHAINRULE_CA",
        ),
        ("WRONG_VERSION_NUMBER", f"{host} doesn't speak TLS; leave grpcs:// out if that is right"),
    ):
        if sign in text:
            return message
    if "Socket closed" in text and "failed to connect" in text:
        wants = (
            "it may want a certificate of yours: CHAINRULE_CERT and CHAINRULE_KEY name it and its key"
            if address.startswith("grpcs://")
            else f"it may speak TLS: try grpcs://{host}"
        )
        return f"{host} accepts connections and closes them at once; {wants}"
    return f"no coordinator answers at {address}; start one with `chainrule serve`"


def _class_of(code: grpc.StatusCode) -> type[ServiceError]:
    match code:
        case grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.OUT_OF_RANGE:
            return InvalidRequest
        case grpc.StatusCode.NOT_FOUND:
            return NotFound
        case grpc.StatusCode.ALREADY_EXISTS:
            return AlreadyExists
        case grpc.StatusCode.FAILED_PRECONDITION:
            return FailedPrecondition
        case grpc.StatusCode.ABORTED:
            return Aborted
        case grpc.StatusCode.UNAUTHENTICATED:
            return Unauthenticated
        case grpc.StatusCode.PERMISSION_DENIED:
            return PermissionDenied
        case grpc.StatusCode.UNAVAILABLE:
            return Unavailable
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded
        case _:
            return ServiceError


def _details(call: grpc.Call) -> tuple[str, list[Violation]]:
    """The ErrorInfo's reason and the BadRequest's violations that came with an error."""
    reason, violations = "", []
    for detail in _status(call).details:
        info, bad = ErrorInfo(), BadRequest()
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(bad):
            violations += [Violation(each.field, each.description) for each in bad.field_violations]
    return reason, violations


def _status(call: grpc.Call) -> Status:
    try:
        return rpc_status.from_call(call) or Status()
    except ValueError:  # the details contradict the call's own code: not to be trusted
        return Status()
