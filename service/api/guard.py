"""The guard before every call: who calls, may they, do they call too often; and the audit log of what they changed."""

import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import structlog

from service.access.audit import Audit
from service.access.door import Door
from service.access.limits import Limits
from service.access.principals import EVERYONE, Principal, Scope, act_as
from service.api.errors import code_name
from service.errors import PermissionDenied, ServiceError, Unauthenticated, Unavailable

NOTE_SECONDS = 1.0
"""Refused strangers are in the log so often at the most, or they could fill it."""

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

    def __init__(self, door: Door, limits: Limits, audit: Audit | None) -> None:
        self._door = door
        self._limits = limits
        self._audit = audit
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
        needed = NEEDED.get(details.method, Scope.ADMIN)
        if handler is None or needed is None:
            return handler
        sent = [value for name, value in details.invocation_metadata or () if name == "authorization"]
        try:
            principal = self._door.principal([value for value in sent if isinstance(value, str)])
        except Unauthenticated as error:
            return _refusing(handler, error, self._note_stranger)
        call = _Call(self, principal, needed, details.method)
        for kind in ("unary_unary", "stream_unary"):
            if method := getattr(handler, kind):
                return handler._replace(**{kind: call.answering_once(method)})
        for kind in ("unary_stream", "stream_stream"):
            if method := getattr(handler, kind):
                return handler._replace(**{kind: call.answering_often(method)})
        return handler

    def admit(self, principal: Principal, needed: Scope, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Counts the call, and has everything from here on happen on the principal's behalf. Raises what refuses it."""
        self._limits.begin(principal.name)

        end: Any = functools.partial(self._end, principal.name)
        context.add_done_callback(end)
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

    def _end(self, name: str, _context: object) -> None:
        self._limits.end(name)

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

    def __init__(self, guard: Guard, principal: Principal, needed: Scope, method: str) -> None:
        self._guard = guard
        self._principal = principal
        self._needed = needed
        self._method = method
        self._resource = ""
        """What it is about, as far as that is known."""

    def answering_once(self, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(method)
        async def wrapped(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            outcome, peer = "OK", context.peer()
            try:
                seen = self._seen(request)
                self._admit(context)
                response = await method(seen, context)
                self._resource = self._resource or _resource(response)
            except BaseException as error:
                outcome = _outcome(error)
                raise
            else:
                return response
            finally:
                self._note(outcome, peer)

        return wrapped

    def answering_often(self, method: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
        @functools.wraps(method)
        async def wrapped(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            outcome, peer = "OK", context.peer()
            try:
                seen = self._seen(request)
                self._admit(context)
                async for response in method(seen, context):
                    yield response
            except BaseException as error:
                outcome = _outcome(error)
                raise
            finally:
                self._note(outcome, peer)

        return wrapped

    def _admit(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        names = context.auth_context().get("x509_common_name", ())
        if self._principal is EVERYONE and names:
            # There are no tokens, but a certificate that TLS has checked.
            self._principal = Principal(next(iter(names)).decode(errors="replace"), Scope.ADMIN)
        self._guard.admit(self._principal, self._needed, context)

    def _seen(self, request: Any) -> Any:
        """The request, or the stream of them, after a look at what the first is about."""
        if isinstance(request, AsyncIterator):
            return self._all_seen(request)
        self._resource = _resource(request)
        return request

    async def _all_seen(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in requests:
            self._resource = self._resource or _resource(request)
            yield request

    def _note(self, outcome: str, peer: str) -> None:
        """Of a stream that its client left this may come late: a call that is over must not be asked for its peer."""
        if self._needed > Scope.READ:
            self._guard.note(self._principal, self._method, self._resource, outcome, peer)


def _refusing(handler: Any, error: Unauthenticated, note: Callable[[str, str], None]) -> Any:
    """A handler of the same kind that refuses, and takes what comes as it is."""

    async def once(_request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        note(context.peer(), error.reason)
        raise error

    async def often(_request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        await once(_request, context)
        yield

    methods = {
        kind: once if kind.endswith("unary") else often
        for kind in ("unary_unary", "stream_unary", "unary_stream", "stream_stream")
        if getattr(handler, kind)
    }
    return handler._replace(request_deserializer=lambda data: data, **methods)


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
