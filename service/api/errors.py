"""Errors as clients see them: a status code, the wrong fields, a reason; never the text of an unexpected exception."""

import asyncio
import errno
import functools
import inspect
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, NoReturn

import grpc
import structlog
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from service.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    ServiceError,
    Unauthenticated,
    Unavailable,
    Violation,
)

DOMAIN = "chainrule"

WRITE_SECONDS = 60.0
"""How long a client may leave a response of a stream untaken."""

STATUS_SECONDS = 1.0
"""How long to wait until the status of such a stream is on its way."""

CODES: dict[type[ServiceError], int] = {
    InvalidArgument: code_pb2.INVALID_ARGUMENT,
    NotFound: code_pb2.NOT_FOUND,
    AlreadyExists: code_pb2.ALREADY_EXISTS,
    FailedPrecondition: code_pb2.FAILED_PRECONDITION,
    Unauthenticated: code_pb2.UNAUTHENTICATED,
    PermissionDenied: code_pb2.PERMISSION_DENIED,
    ResourceExhausted: code_pb2.RESOURCE_EXHAUSTED,
    Aborted: code_pb2.ABORTED,
    Unavailable: code_pb2.UNAVAILABLE,
}

MOST_BYTES = 1_700
"""The most text about wrong fields. It travels in headers, as the message and twice in the details, and by default a
client takes 8 KiB of those: with more, it would get no error of ours but one about headers."""

_log = structlog.get_logger(__name__)


def status(error: ServiceError) -> status_pb2.Status:
    """The status for an error, with its details packed."""
    details: list[Any] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)]
    message = error.message
    if isinstance(error, InvalidArgument):
        shown = _shown(error.violations)
        fields = [
            error_details_pb2.BadRequest.FieldViolation(field=violation.field, description=violation.description)
            for violation in shown
        ]
        details.append(error_details_pb2.BadRequest(field_violations=fields))
        left = len(error.violations) - len(shown)
        message = InvalidArgument(shown).message + (f"; and {left:,} more" if left else "")
    if isinstance(error, ResourceExhausted | Unavailable) and error.retry_seconds is not None:
        details.append(error_details_pb2.RetryInfo(retry_delay=_duration(error.retry_seconds)))
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    return status_pb2.Status(code=CODES[type(error)], message=message, details=packed)


def code_name(error: Exception) -> str:
    """The name of the status code that clients get for an error, such as NOT_FOUND."""
    told = _told(error)
    return code_pb2.Code.Name(CODES[type(told)]) if isinstance(told, ServiceError) else "INTERNAL"


def _duration(seconds: float) -> Duration:
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def _shown(violations: Sequence[Violation]) -> Sequence[Violation]:
    """As many of the violations as fit, the first ones; at least one, shortened if need be."""
    shown: list[Violation] = []
    room = MOST_BYTES
    for violation in violations:
        room -= _sent(violation.field) + _sent(violation.description)
        if room < 0:
            break
        shown.append(violation)
    return shown or [replace(violations[0], description=_shortened(violations[0].description))]


def _shortened(text: str) -> str:
    while _sent(text) > MOST_BYTES // 2:
        text = text[: len(text) * 3 // 4] + "..."
    return text


def _sent(text: str) -> int:
    """The length of a text in a header, where every byte beyond ASCII takes three."""
    return sum(1 if character.isascii() else 3 * len(character.encode()) for character in text)


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns what a servicer raises into a status, and ends streams whose client takes nothing."""

    def __init__(self, write_seconds: float = WRITE_SECONDS) -> None:
        """`write_seconds` is how long a client may leave a response of a stream untaken."""
        self._write_seconds = write_seconds

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """Wraps the handler of one call."""
        handler = await continuation(details)
        if handler is None:
            return None
        handler = handler._replace(request_deserializer=_reading(handler.request_deserializer))
        for kind in ("unary_unary", "stream_unary"):
            if method := getattr(handler, kind):
                return handler._replace(**{kind: _answering_once(method)})
        for kind in ("unary_stream", "stream_stream"):
            if method := getattr(handler, kind):
                # The standard health service writes its answers to the context instead of yielding them.
                yields = inspect.isasyncgenfunction(method)
                answering = _answering_often(method, self._write_seconds) if yields else _answering_once(method)
                return handler._replace(**{kind: answering})
        return handler


def _answering_once(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(method)
    async def wrapped(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await method(_read(request), context)
        except Exception as error:
            await _abort(error, context)

    return wrapped


def _answering_often(
    method: Callable[..., AsyncGenerator[Any, None]], write_seconds: float
) -> Callable[..., Awaitable[None]]:
    @functools.wraps(method)
    async def wrapped(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        try:
            async with aclosing(method(_read(request), context)) as responses:
                async for response in responses:
                    await _write(response, context, write_seconds)
        except _SlowReader:
            # The status waits behind what the client doesn't take, and so would we: it gets it once it reads on.
            with suppress(TimeoutError):
                await asyncio.wait_for(_abort(_slow(write_seconds), context), STATUS_SECONDS)
        except Exception as error:
            await _abort(error, context)

    return wrapped


class _SlowReader(Exception):
    """A client takes nothing."""


async def _write(response: Any, context: grpc.aio.ServicerContext[Any, Any], seconds: float) -> None:
    """Waits until there is room for a response, so that nothing piles up here.

    Raises _SlowReader; or CancelledError if the client is gone, of which gRPC tells in more than one way.
    """
    try:
        async with asyncio.timeout(seconds):  # wait_for would make a task of every message
            await context.write(response)
    except TimeoutError:
        raise _SlowReader from None
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None


def _slow(seconds: float) -> Unavailable:
    return Unavailable(
        f"nothing was taken from this stream for {seconds:g} seconds; call again, and go on where you are",
        reason="SLOW_READER",
    )


def _reading(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Has bytes that are no message become an error of ours, since gRPC would send the exception's text."""

    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return InvalidArgument.of("request", "is not the message that the method takes", reason="NO_MESSAGE")

    return read


def _read(request: Any) -> Any:
    """A request or a stream of them, raising the error that one of them has become."""
    if isinstance(request, ServiceError):
        raise request
    return _read_all(request) if isinstance(request, AsyncIterator) else request


async def _read_all(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _read(request)


async def _abort(error: Exception, context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    told = _told(error)
    if told is not error:
        _log.error("the disk is full", exc_info=error)
    if isinstance(told, ServiceError):
        answer = rpc_status.to_status(status(told))
        told_before = context.trailing_metadata() or ()  # which these would replace
        await context.abort(answer.code, answer.details or "", (*told_before, *(answer.trailing_metadata or ())))
    number = secrets.token_hex(4)
    _log.error("unexpected error", error_id=number, exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, f"an error in the service itself; its log tells more at {number}")


def _told(error: Exception) -> Exception:
    """What clients are told of instead of an error: a full disk is one that they may know of."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return ResourceExhausted("the service's disk is full, so that nothing came of this call", reason="STORAGE_FULL")
    return error
