"""Calls, counted as they are made: how many, how they ended, how long they took, how many messages went each way.

Each has an id, by which what is logged of it is found: what the caller sent as `x-request-id`, or one made here. It is
told in the trailing metadata of the answer.
"""

import asyncio
import functools
import inspect
import secrets
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from structlog.contextvars import bind_contextvars

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds: from a look at a job to an upload."""

CALL_ID = "x-request-id"
LONGEST_ID = 100

CODES = {
    code.value[0]: "OK"
    if code is grpc.StatusCode.OK
    else code.name.title().replace("_", "").replace("Cancelled", "Canceled")
    for code in grpc.StatusCode
}
"""The names of status codes in Go, which is how dashboards for gRPC know them."""

Metadata = Iterable[tuple[str, str | bytes]] | None
Trace = Callable[[str, Metadata, str], Callable[[int], None]]
"""Begins the trace of a call, of its path, metadata and id; what it returns ends that with a status code."""

_OK, _CANCELLED, _UNKNOWN, _DEADLINE_EXCEEDED = (
    code.value[0]
    for code in (
        grpc.StatusCode.OK,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    )
)


@dataclass(frozen=True)
class Method:
    """A method that is served."""

    type: str
    """"unary", "client_stream", "server_stream" or "bidi_stream"."""
    service: str
    name: str


@dataclass
class Count:
    """The calls of one method."""

    started: int = 0
    handled: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CODES.values(), 0))
    """By the name of the code that they ended with."""
    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    seconds: float = 0.0
    received: int = 0
    """Messages, as is `sent`."""
    sent: int = 0

    @contextmanager
    def call(self, context: Any, end: Callable[[int], None]) -> Iterator[None]:
        """Counts the call that is handled inside, and has it ended with its status code."""
        self.started += 1
        began, code = time.perf_counter(), _UNKNOWN
        try:
            yield
            code = _number(context.code())
        except grpc.aio.AbortError:
            code = _number(context.code())
            raise
        except (asyncio.CancelledError, GeneratorExit):  # nobody waits for it any more
            left = context.time_remaining()
            code = _DEADLINE_EXCEEDED if left is not None and left <= 0 else _CANCELLED
            raise
        finally:
            taken = time.perf_counter() - began
            self.handled[CODES[code]] += 1
            self.counts[bisect_left(BUCKETS, taken)] += 1
            self.seconds += taken
            end(code)


class Calls:
    """The calls of every method that is served. Written by the event loop, read by anyone."""

    def __init__(self, services: Iterable[Any], trace: Trace | None = None) -> None:
        """`services` are their descriptors: what is counted is known from the start, and bounded."""
        self.trace = trace or _untraced
        self.methods = {method: Count() for service in services for method in _methods(service)}
        self._paths = {f"/{method.service}/{method.name}": count for method, count in self.methods.items()}

    def of(self, path: str) -> Count | None:
        """The calls of a method by its path; None if there is no such method."""
        return self._paths.get(path)


def call_id(metadata: Metadata) -> str:
    """What the caller calls it, if that is fit to be logged; else an id of our own."""
    sent = next((value for name, value in metadata or () if name == CALL_ID), "")
    if isinstance(sent, str) and 0 < len(sent) <= LONGEST_ID and sent.isascii() and sent.isprintable():
        return sent
    return secrets.token_hex(8)


class CallsInterceptor(grpc.aio.ServerInterceptor):
    """Counts calls, and gives them ids. The first of all interceptors, so that it sees the status that clients get."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """Wraps the handler of one call."""
        handler, count = await continuation(details), self._calls.of(details.method)
        if handler is None or count is None:
            return handler
        begin = functools.partial(_begin, details, self._calls.trace)
        for kind in ("unary_unary", "stream_unary", "unary_stream", "stream_stream"):
            if method := getattr(handler, kind):
                return handler._replace(
                    **{kind: _counting(method, count, begin)},
                    request_deserializer=_tallied(handler.request_deserializer, count, "received"),
                    response_serializer=_tallied(handler.response_serializer, count, "sent"),
                )
        return handler


def _begin(details: grpc.HandlerCallDetails, trace: Trace, context: Any) -> Callable[[int], None]:
    """Says what the call is called, in the log, the trace and the answer; returns what ends the trace."""
    metadata = details.invocation_metadata
    named = call_id(metadata)
    bind_contextvars(call_id=named)  # the task is the call's own
    context.set_trailing_metadata(((CALL_ID, named),))
    return trace(details.method, metadata, named)


def _untraced(_path: str, _metadata: Metadata, _named: str) -> Callable[[int], None]:
    return lambda _code: None


def _counting(
    method: Callable[..., Any], count: Count, begin: Callable[[Any], Callable[[int], None]]
) -> Callable[..., Any]:
    if inspect.isasyncgenfunction(method):

        @functools.wraps(method)
        async def answering_often(request: Any, context: Any) -> AsyncIterator[Any]:
            with count.call(context, begin(context)):
                async for response in method(request, context):
                    yield response

        return answering_often

    @functools.wraps(method)
    async def answering_once(request: Any, context: Any) -> Any:
        with count.call(context, begin(context)):
            return await method(request, context)

    return answering_once


def _tallied(convert: Callable[[Any], Any], count: Count, way: str) -> Callable[[Any], Any]:
    """Every message goes through its serializer, whatever the shape of the call."""

    def converted(message: Any) -> Any:
        setattr(count, way, getattr(count, way) + 1)
        return convert(message)

    return converted


def _methods(service: Any) -> Iterator[Method]:
    types = {
        (False, False): "unary",
        (True, False): "client_stream",
        (False, True): "server_stream",
        (True, True): "bidi_stream",
    }
    for method in service.methods:
        yield Method(types[method.client_streaming, method.server_streaming], service.full_name, method.name)


def _number(code: Any) -> int:
    """A status code as a number. A context has it as that, or as a StatusCode, or not at all where all was well."""
    number = code.value[0] if isinstance(code, grpc.StatusCode) else code or _OK
    return number if number in CODES else _UNKNOWN
