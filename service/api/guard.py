"""The guard before every call: who calls, may they, do they call too often; and the audit log of what they changed."""

import asyncio
import functools
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import structlog

from service.access.audit import Audit
from service.access.door import Door
from service.access.limits import Limits, OpenCalls
from service.access.principals import EVERYONE, Principal, Scope, act_as
from service.api.errors import code_name
from service.errors import Aborted, InvalidArgument, PermissionDenied, ServiceError, Unauthenticated, Unavailable

NOTE_SECONDS = 1.0
"""Refused strangers are in the log so often at the most, or they could fill it."""

ARRIVAL_SECONDS = 300.0
"""How long the one message of a call may be on its way."""

MOST_OF_AN_ADDRESS = 100
MOST_OF_STRANGERS = 500
"""Calls at a time of methods that are open to everyone, from one address and from all: health watches, above all. What
gRPC takes at a time is more, so that nobody without a token can keep those out who have one."""

KINDS = ("unary_unary", "stream_unary", "unary_stream", "stream_stream")
AS_STREAM = {"unary_unary": "stream_unary", "unary_stream": "stream_stream"}

_TRAINING, _DATASETS, _MODELS = (f"/chainrule.v1.{name}Service" for name in ("Training", "Dataset", "Model"))
_INFERENCE, _HEALTH = "/inference.GRPCInferenceService", "/grpc.health.v1.Health"

NEEDED: dict[str, Scope | None] = {
    f"{_TRAINING}/CreateTrainingJob": Scope.TRAIN,
    f"{_TRAINING}/GetTrainingJob": Scope.READ,
    f"{_TRAINING}/ListTrainingJobs": Scope.READ,
    f"{_TRAINING}/UpdateTrainingJob": Scope.TRAIN,
    f"{_TRAINING}/ListCheckpoints": Scope.READ,
    f"{_TRAINING}/CancelTrainingJob": Scope.TRAIN,
    f"{_TRAINING}/PauseTrainingJob": Scope.TRAIN,
    f"{_TRAINING}/ResumeTrainingJob": Scope.TRAIN,
    f"{_TRAINING}/DeleteTrainingJob": Scope.TRAIN,
    f"{_TRAINING}/WatchTrainingJob": Scope.READ,
    f"{_TRAINING}/TrainOnline": Scope.TRAIN,
    f"{_DATASETS}/UploadDataset": Scope.TRAIN,
    f"{_DATASETS}/QueryUpload": Scope.READ,
    f"{_DATASETS}/ImportDataset": Scope.TRAIN,
    f"{_DATASETS}/GetDataset": Scope.READ,
    f"{_DATASETS}/ListDatasets": Scope.READ,
    f"{_DATASETS}/DeleteDataset": Scope.TRAIN,
    f"{_MODELS}/GetModel": Scope.READ,
    f"{_MODELS}/ListModels": Scope.READ,
    f"{_MODELS}/DownloadModel": Scope.READ,
    f"{_MODELS}/UploadModel": Scope.TRAIN,
    f"{_MODELS}/CreateModel": Scope.TRAIN,
    f"{_MODELS}/DeleteModel": Scope.TRAIN,
    f"{_MODELS}/EvaluateModel": Scope.READ,
    # What an alias stands for is what everyone is answered with who asks it: not a matter of one who trains.
    f"{_MODELS}/SetModelAlias": Scope.ADMIN,
    f"{_MODELS}/DeleteModelAlias": Scope.ADMIN,
    f"{_INFERENCE}/ServerLive": None,
    f"{_INFERENCE}/ServerReady": None,
    f"{_INFERENCE}/ServerMetadata": Scope.READ,
    f"{_INFERENCE}/ModelReady": Scope.READ,
    f"{_INFERENCE}/ModelMetadata": Scope.READ,
    f"{_INFERENCE}/ModelInfer": Scope.READ,
    # Whoever watches over processes has no token; and the contract is no secret.
    f"{_HEALTH}/Check": None,
    f"{_HEALTH}/Watch": None,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": None,
}
"""The scope that each method needs; None if it is open to all. Whatever changes something needs more than READ."""

_log = structlog.get_logger(__name__)


class Guard(grpc.aio.ServerInterceptor):
    """Lets a call through to its method, or refuses it before its messages are even parsed."""

    def __init__(
        self, door: Door, limits: Limits, audit: Audit | None, arrival_seconds: float = ARRIVAL_SECONDS
    ) -> None:
        self._door = door
        self._limits = limits
        self._strangers = OpenCalls(MOST_OF_AN_ADDRESS, MOST_OF_STRANGERS)
        self._audit = audit
        self._arrival_seconds = arrival_seconds
        self._noted = 0.0
        self._draining = False

    def drain(self) -> None:
        """From now on nothing is begun any more that changes something; who asks is told to come again."""
        self._draining = True

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """Wraps the handler of one call."""
        handler = await continuation(details)
        if handler is None:
            return None
        needed, principal = NEEDED.get(details.method, Scope.ADMIN), None
        if needed is not None:
            sent = [value for name, value in details.invocation_metadata or () if name == "authorization"]
            try:
                principal = self._door.principal([value for value in sent if isinstance(value, str)])
            except Unauthenticated as error:
                return _refusing(handler, error, self._note_stranger)
        call = _Call(self, principal, needed, details.method)
        for kind in KINDS:
            if method := getattr(handler, kind):
                # The standard health service writes its answers to the context instead of yielding them.
                often = inspect.isasyncgenfunction(method)
                arriving = self._arrival_seconds if kind in AS_STREAM else None
                wrapped = call.answering_often(method, arriving) if often else call.answering_once(method, arriving)
                return _at_once(handler, kind, wrapped)
        return handler

    def count(self, principal: Principal | None, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Counts a call for as long as it is open: the principal's, or that of nobody in particular.

        Raises ResourceExhausted.
        """
        # All connections from one address are one stranger's: "ipv4:192.0.2.7" of "ipv4:192.0.2.7:50312".
        limits, who = (self._limits, principal.name) if principal else (self._strangers, _address(context.peer()))
        limits.begin(who)

        end: Any = functools.partial(_end, limits, who)
        context.add_done_callback(end)

    def admit(self, principal: Principal, needed: Scope) -> None:
        """Has everything from here on happen on the principal's behalf. Raises what refuses the call."""
        if principal.scope < needed:
            raise PermissionDenied(
                f"{principal.name!r} has the scope {principal.scope.name.lower()}, and this needs "
                f"{needed.name.lower()}; whoever runs the service can give a token with that scope",
                reason="SCOPE_TOO_SMALL",
            )
        if self._draining and needed > Scope.READ:
            raise Unavailable(
                "the coordinator is stopping; call again when it, or the one in its place, is there",
                reason="COORDINATOR_STOPPING",
            )
        act_as(principal)

    def note(self, principal: Principal, method: str, resource: str, outcome: str, peer: str) -> None:
        """Puts a call into the audit log."""
        if self._audit is not None:
            self._audit.note(principal.name, method.strip("/"), resource, outcome, peer)

    def _note_stranger(self, peer: str, reason: str) -> None:
        now = time.monotonic()
        if now - self._noted > NOTE_SECONDS:
            self._noted = now
            _log.warning("a call without a valid token was refused", peer=peer, reason=reason)


class _Call:
    """One call, from its admission to its end."""

    def __init__(self, guard: Guard, principal: Principal | None, needed: Scope | None, method: str) -> None:
        """Without a principal and a scope, of a method that is open to everyone."""
        self._guard = guard
        self._principal = principal
        self._needed = needed
        self._method = method
        self._resource = ""
        """What it is about, as far as that is known."""

    def answering_once(
        self, method: Callable[..., Awaitable[Any]], arrival_seconds: float | None
    ) -> Callable[..., Awaitable[Any]]:
        """A method that takes one message, which may be that long on its way, or a stream of them."""

        @functools.wraps(method)
        async def wrapped(requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            outcome, peer = "OK", context.peer()
            try:
                response = await method(await self._admitted(requests, context, arrival_seconds), context)
                self._resource = self._resource or _resource(response)
            except BaseException as error:
                outcome = _outcome(error)
                raise
            else:
                return response
            finally:
                self._note(outcome, peer)

        return wrapped

    def answering_often(
        self, method: Callable[..., AsyncIterator[Any]], arrival_seconds: float | None
    ) -> Callable[..., AsyncIterator[Any]]:
        """As answering_once, of a method with a stream of answers."""

        @functools.wraps(method)
        async def wrapped(
            requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]
        ) -> AsyncIterator[Any]:
            outcome, peer = "OK", context.peer()
            try:
                async for response in method(await self._admitted(requests, context, arrival_seconds), context):
                    yield response
            except BaseException as error:
                outcome = _outcome(error)
                raise
            finally:
                self._note(outcome, peer)

        return wrapped

    async def _admitted(
        self,
        requests: AsyncIterator[Any],
        context: grpc.aio.ServicerContext[Any, Any],
        arrival_seconds: float | None,
    ) -> Any:
        """The request, or the stream of them. Counted before anything of it is waited for. Raises what refuses it."""
        names = context.auth_context().get("x509_common_name", ())
        if self._principal is EVERYONE and names:
            # There are no tokens, but a certificate that TLS has checked.
            self._principal = Principal(next(iter(names)).decode(errors="replace"), Scope.ADMIN)
        self._guard.count(self._principal, context)
        if arrival_seconds is None:
            request: Any = self._all_seen(requests)
        else:
            request = await _arrived(context, arrival_seconds)
            self._resource = _resource(request)
        if self._principal and self._needed:
            self._guard.admit(self._principal, self._needed)
        return request

    async def _all_seen(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """After a look at what the first is about."""
        async for request in requests:
            self._resource = self._resource or _resource(request)
            yield request

    def _note(self, outcome: str, peer: str) -> None:
        """Of a stream that its client left this may come late: a call that is over must not be asked for its peer."""
        if self._principal and self._needed and self._needed > Scope.READ:
            self._guard.note(self._principal, self._method, self._resource, outcome, peer)


def _at_once(handler: Any, kind: str, method: Callable[..., Any]) -> Any:
    """A handler of a stream of requests, in place of one of that kind.

    gRPC would wait for a single request before it asks anyone, for as long as the client likes; and as each such call
    is one of those that it takes at a time, anyone could keep all others out.
    """
    return handler._replace(request_streaming=True, **{kind: None} | {AS_STREAM.get(kind, kind): method})


async def _arrived(context: grpc.aio.ServicerContext[Any, Any], seconds: float) -> Any:
    """The one message of a call. Raises InvalidArgument if it is none, or there is none, or Aborted."""
    try:
        # Not from the stream of requests: those are generators, and one that isn't exhausted costs a task to end it.
        async with asyncio.timeout(seconds):
            message = await context.read()
    except TimeoutError:
        raise Aborted(f"the message of the call hadn't come after {seconds:g} seconds", reason="CALL_IDLE") from None
    if isinstance(message, ServiceError):
        raise message
    if message is grpc.aio.EOF:
        raise InvalidArgument.of("request", "is missing: the call ended without a message", reason="NO_MESSAGE")
    return message


def _address(peer: str) -> str:
    return peer.rpartition(":")[0] or peer


def _end(limits: Limits | OpenCalls, who: str, _context: object) -> None:
    limits.end(who)


def _refusing(handler: Any, error: Unauthenticated, note: Callable[[str, str], None]) -> Any:
    """A handler of the same kind that refuses, and waits for nothing that would come."""

    async def once(_requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        note(context.peer(), error.reason)
        raise error

    async def often(_requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        await once(_requests, context)
        yield

    (kind,) = (kind for kind in KINDS if getattr(handler, kind))
    return _at_once(handler, kind, once if kind.endswith("unary") else often)


def _resource(message: Any) -> str:
    """The name of what a request or a response is about, "" if it doesn't say."""
    if isinstance(message, ServiceError):  # bytes that were no message
        return ""
    # An update names its job within, a stream of mini-batches in its start.
    header = getattr(message, "header", getattr(message, "training_job", getattr(message, "start", message)))
    # An alias first: the request to set one also names a model.
    for field, prefix in (("alias", "models/@"), ("name", ""), ("dataset_id", "datasets/"), ("model_id", "models/")):
        if value := getattr(header, field, ""):
            return f"{prefix}{value}"
    return ""


def _outcome(error: BaseException) -> str:
    """The status code of a call that ended so."""
    return code_name(error) if isinstance(error, Exception) else "CANCELLED"
