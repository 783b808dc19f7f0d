"""The metrics of the gRPC server, under the names that go-grpc-prometheus made customary, which dashboards know."""

from service.api.calls import BUCKETS, Calls, Count
from service.metrics.exposition import Metric, Spread, exposed, labels_text

METHOD = ("grpc_type", "grpc_service", "grpc_method")
"""The labels of every series: all methods that are served have theirs from the start, and there are no others."""

METRICS: tuple[Metric[Count], ...] = (
    Metric("counter", "grpc_server_started_total", "Calls that were begun.", lambda count: count.started),
    Metric(
        "counter",
        "grpc_server_handled_total",
        "Calls that have ended, by the name of their status code in Go: OK, InvalidArgument, NotFound and so on.",
        lambda count: {(code,): number for code, number in count.handled.items()},
        labels=("grpc_code",),
    ),
    Metric(
        "histogram",
        "grpc_server_handling_seconds",
        "Time from a call's begin to its end. Calls that watch last as long as there is something to see.",
        lambda count: Spread(tuple(count.counts), count.seconds),
        bounds=BUCKETS,
    ),
    Metric(
        "counter",
        "grpc_server_msg_received_total",
        "Messages received: one for each call, or as many as a stream brings.",
        lambda count: count.received,
    ),
    Metric(
        "counter",
        "grpc_server_msg_sent_total",
        "Messages sent: one for each call that is answered, or as many as a stream takes.",
        lambda count: count.sent,
    ),
)


class CallMetrics:
    """The metrics of one server."""

    def __init__(self, calls: Calls) -> None:
        self._seen = [
            (labels_text(METHOD, (method.type, method.service, method.name)), count)
            for method, count in calls.methods.items()
        ]

    def text(self) -> str:
        """Their part of a scrape."""
        return exposed(METRICS, self._seen)
