"""The spans of calls and jobs. The only file that knows OpenTelemetry, an extra.

Spans wait in a bounded queue for a thread that sends them: where to and how, OpenTelemetry's environment variables say.
A collector that is slow or away costs spans, and no call and no job anything.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

import structlog
from opentelemetry.context import Context, attach
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanContext, SpanKind, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.trace.status import Status, StatusCode

from service.errors import NotFound
from service.jobs.events import Failed, Progress, StateChanged
from service.jobs.job import Job
from service.jobs.jobs import Jobs
from service.jobs.store import Record

CLOSE_SECONDS = 2.0
"""How long the service waits at its end for spans to be made, and again for them to be sent."""

NOTE_SECONDS = 60.0
"""That spans can't be sent is in the log so often at the most."""

MOST_ENDED = 1_000
"""Jobs that have ended and whose spans are still to be made. There are none of those that come on top."""

EVENTS_AT_ONCE = 1_000

_PARENT = TraceContextTextMapPropagator()
_FAULTS = (2, 4, 12, 13, 14, 15)
"""The codes that OpenTelemetry takes for the fault of a server: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL,
UNAVAILABLE, DATA_LOSS. All others are the caller's."""

_log = structlog.get_logger(__name__)


class Tracing:
    """Makes spans, and sends them until it is closed."""

    def __init__(self, jobs: Jobs) -> None:
        """Raises ValueError if a variable of OpenTelemetry's is not what it should be."""
        self._notes = _Notes()
        logging.getLogger("opentelemetry").addHandler(self._notes)
        self._exporter = OTLPSpanExporter()
        named = Resource.create({"service.name": "chainrule"}).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=named, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("chainrule")
        self._jobs = jobs
        self._alive: dict[str, SpanContext | None] = {job.id: None for job in jobs.all() if not job.has_ended}
        """The jobs that haven't ended, with the calls that created them as far as this process has seen these."""
        self._ended: queue.SimpleQueue[tuple[Job, SpanContext | None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name="tracing", daemon=True)
        self._thread.start()
        jobs.listen(self._heard)

    def call(
        self, path: str, metadata: Iterable[tuple[str, str | bytes]] | None, call_id: str
    ) -> Callable[[int], None]:
        """Begins a call's span, within the task that is the call's own; what is returned ends it with a status code.

        It continues the trace that the caller names in `traceparent` (W3C Trace Context), if that is one.
        """
        service, _, method = path.strip("/").partition("/")
        sent = {name: value for name, value in metadata or () if name in _PARENT.fields and isinstance(value, str)}
        span = self._tracer.start_span(
            path.strip("/"),
            context=_PARENT.extract(sent),
            kind=SpanKind.SERVER,
            attributes={
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": method,
                "chainrule.call_id": call_id,
            },
        )
        attach(set_span_in_context(span, Context()))

        def end(code: int) -> None:
            span.set_attribute("rpc.grpc.status_code", code)
            if code in _FAULTS:
                span.set_status(Status(StatusCode.ERROR))
            span.end()

        return end

    def close(self) -> None:
        """Sends what there is, within a few seconds; what can't be sent by then is lost."""
        self._ended.put(None)
        self._thread.join(CLOSE_SECONDS)
        # It would wait for half a minute, and takes no deadline.
        last = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        last.start()
        last.join(CLOSE_SECONDS)
        if last.is_alive():
            self._exporter.shutdown()
            last.join(CLOSE_SECONDS)
        logging.getLogger("opentelemetry").removeHandler(self._notes)

    def _heard(self, job_id: str) -> None:
        """Looks at a job of which there is news, in the thread, and on behalf of the call, that brings it."""
        call = get_current_span()
        if call.is_recording():
            call.set_attribute("chainrule.job", f"jobs/{job_id}")
        try:
            job = self._jobs.get(job_id)
        except NotFound:
            return
        if not job.has_ended:
            self._alive.setdefault(job_id, call.get_span_context())
        elif job_id in self._alive and self._ended.qsize() < MOST_ENDED:
            self._ended.put((job, self._alive.pop(job_id, None)))
        else:
            self._alive.pop(job_id, None)

    def _loop(self) -> None:
        while ended := self._ended.get():
            try:
                self._trace(*ended)
            except Exception:  # whatever it is, the next job may fare better
                _log.exception("there is no span of a job that has ended", job=ended[0].id)

    def _trace(self, job: Job, creator: SpanContext | None) -> None:
        """Makes the span of a job that has ended.

        A span is sent when it ends, and a job may outlive several coordinators: so it is made of what is on disk.
        """
        links = [Link(creator)] if creator and creator.is_valid else []
        attributes: dict[str, str | int] = {
            "chainrule.job": job.name,
            "chainrule.job.state": job.state.kind,
            "chainrule.job.workers": job.spec.workers,
            "chainrule.job.steps": job.steps(Progress()),
        }
        span = self._tracer.start_span(
            "job", context=Context(), links=links, attributes=attributes, start_time=_nanoseconds(job.created)
        )
        if span.is_recording():
            for time_, state in self._states(job.id):
                span.add_event(state, timestamp=_nanoseconds(time_))
        if isinstance(job.state, Failed):
            span.set_attribute("error.type", job.state.reason)
            span.set_status(Status(StatusCode.ERROR))
        span.end(end_time=_nanoseconds(job.ended or job.created))

    def _states(self, job_id: str) -> Iterator[tuple[datetime, str]]:
        """When the job came into which states."""
        records: list[Record] = self._jobs.events(job_id, 0, EVENTS_AT_ONCE)
        while records:
            yield from ((each.time, each.event.state.kind) for each in records if isinstance(each.event, StateChanged))
            records = self._jobs.events(job_id, records[-1].number, EVENTS_AT_ONCE)


class _Notes(logging.Handler):
    """What OpenTelemetry has to say, in our log, and not over and over."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._noted = -NOTE_SECONDS

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now - self._noted >= NOTE_SECONDS:
            self._noted = now
            _log.warning("not all spans can be sent", why=record.getMessage())


def _nanoseconds(time_: datetime) -> int:
    """Since 1970."""
    return int(time_.timestamp() * 1e9)
