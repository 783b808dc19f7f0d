"""Errors as clients see them: a status code, the wrong fields, a reason; never the text of an unexpected exception."""

import functools
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import grpc
import structlog
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from service.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    ServiceError,
    Unavailable,
)

DOMAIN = "chainrule"

CODES: dict[type[ServiceError], int] = {
    InvalidArgument: code_pb2.INVALID_ARGUMENT,
    NotFound: code_pb2.NOT_FOUND,
    AlreadyExists: code_pb2.ALREADY_EXISTS,
    FailedPrecondition: code_pb2.FAILED_PRECONDITION,
    ResourceExhausted: code_pb2.RESOURCE_EXHAUSTED,
    Unavailable: code_pb2.UNAVAILABLE,
}

_log = structlog.get_logger(__name__)


def status(error: ServiceError) -> status_pb2.Status:
    """The status for an error, with its details packed."""
    details: list[Any] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)]
    if isinstance(error, InvalidArgument):
        fields = [
            error_details_pb2.BadRequest.FieldViolation(field=violation.field, description=violation.description)
            for violation in error.violations
        ]
        details.append(error_details_pb2.BadRequest(field_violations=fields))
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    return status_pb2.Status(code=CODES[type(error)], message=error.message, details=packed)


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns what a servicer raises into a status."""

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """Wraps the handler of one call."""
        handler = await continuation(details)
        if handler is None:
            return None
        for kind in ("unary_unary", "stream_unary"):
            if method := getattr(handler, kind):
                return handler._replace(**{kind: _answering_once(method)})
        for kind in ("unary_stream", "stream_stream"):
            if method := getattr(handler, kind):
                return handler._replace(**{kind: _answering_often(method)})
        return handler


def _answering_once(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(method)
    async def wrapped(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await method(request, context)
        except Exception as error:
            await _abort(error, context)

    return wrapped


def _answering_often(method: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
    @functools.wraps(method)
    async def wrapped(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        try:
            async for response in method(request, context):
                yield response
        except Exception as error:
            await _abort(error, context)

    return wrapped


async def _abort(error: Exception, context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, ServiceError):
        answer = rpc_status.to_status(status(error))
        await context.abort(answer.code, answer.details or "", answer.trailing_metadata or ())
    number = secrets.token_hex(4)
    _log.error("unexpected error", error_id=number, exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, f"an error in the service itself; its log tells more at {number}")
