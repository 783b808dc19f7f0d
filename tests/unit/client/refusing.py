"""Errors as the service answers them."""

from typing import NoReturn

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status


def refuse(
    context: grpc.ServicerContext, code: grpc.StatusCode, message: str, reason: str, violations: dict[str, str]
) -> NoReturn:
    """Answers a call with an error in the form that the contract promises."""
    bad = BadRequest()
    for name, description in violations.items():
        bad.field_violations.add(field=name, description=description)
    details: list[Message] = [ErrorInfo(reason=reason, domain="chainrule"), *([bad] if violations else [])]
    status = Status(code=code.value[0], message=message)
    for detail in details:
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError("abort_with_status raises")


def not_found(context: grpc.ServicerContext, name: str) -> NoReturn:
    """Answers that there is no such thing."""
    refuse(context, grpc.StatusCode.NOT_FOUND, f"there is no {name}", "NOT_FOUND", {})
