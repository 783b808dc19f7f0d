"""A watch that outlives the connection: when the stream breaks, the next one goes on after the last event seen."""

import time
from collections.abc import Callable, Iterator

import grpc

from chainrule.errors import from_rpc_error
from chainrule.v1.training_event_pb2 import TrainingEvent
from chainrule.v1.training_job_pb2 import TrainingProgress
from chainrule.v1.training_service_pb2 import WatchTrainingJobResponse

FIRST_BACKOFF, LONGEST_BACKOFF = 0.1, 2.0  # seconds
LONGEST_CONNECT = 30.0  # seconds; a stream that was open for longer had a service at its other end, silent or not

Stream = Iterator[WatchTrainingJobResponse]


def watch(
    open_stream: Callable[[int], Stream], address: str, after_event: int, patience: float
) -> Iterator[TrainingEvent | TrainingProgress]:
    """What the streams carry, as if it were one; `open_stream(number)` opens one that begins after that event.

    Raises Unavailable when nobody has answered for `patience` seconds, another ServiceError at once.
    """
    away_since: float | None = None
    backoff = FIRST_BACKOFF
    while True:
        opened = time.monotonic()
        try:
            for response in open_stream(after_event):
                away_since, backoff = None, FIRST_BACKOFF
                if response.HasField("progress"):
                    yield response.progress
                elif response.HasField("event") and response.event.number > after_event:
                    after_event = response.event.number
                    yield response.event
            return
        except grpc.RpcError as error:
            code = error.code()
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:  # the stream's own, not the job's: open the next
                continue
            now = time.monotonic()
            if away_since is None or now - opened > LONGEST_CONNECT:
                away_since, backoff = now, FIRST_BACKOFF
            if code is not grpc.StatusCode.UNAVAILABLE or now - away_since >= patience:
                raise from_rpc_error(error, address) from error
        time.sleep(backoff)
        backoff = min(2 * backoff, LONGEST_BACKOFF)
