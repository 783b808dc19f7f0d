"""Training on mini-batches as they are made: a stream of them, which goes on by itself when it breaks.

What no checkpoint of the job has yet is kept here, and sent again when the job has to go back to one.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
from numpy.typing import ArrayLike

from chainrule.channel import MAX_MESSAGE_BYTES
from chainrule.errors import DatasetFileError, DeadlineExceeded, FailedPrecondition, from_rpc_error
from chainrule.uploading import FIRST_BACKOFF, LONGEST_BACKOFF, PASSING
from chainrule.v1.online_pb2 import (
    OnlineBatch,
    OnlineFinish,
    OnlineStart,
    OnlineStep,
    TrainOnlineRequest,
    TrainOnlineResponse,
)
from chainrule.v1.training_job_pb2 import TrainingJob

MOST_UNANSWERED = 8
"""How many batches are sent ahead: as many as the service takes."""

DATATYPES = {
    np.dtype(name): datatype
    for name, datatype in (
        ("<f4", "FP32"),
        ("<f8", "FP64"),
        ("<f2", "FP16"),
        *((f"<i{size}", f"INT{8 * size}") for size in (1, 2, 4, 8)),
        *((f"<u{size}", f"UINT{8 * size}") for size in (1, 2, 4, 8)),
        ("?", "BOOL"),
    )
}
"""What the contract calls a type of numbers."""

Call = Callable[[Iterator[TrainOnlineRequest]], Any]
"""Opens a stream: gRPC's call of TrainOnline."""


class OnlineSession:
    """A job that learns from what this process sends it. Use it in a ``with`` block.

        with client.train_online(spec) as session:
            for x, y in batches:
                print(session.step(x=x, y=y).loss)
            job = session.finish()

    Left without `finish` the job waits for the next session, and is paused after a while. Not to be shared by threads.
    Every method raises what `Client.train_online` does.
    """

    def __init__(
        self, call: Call, look: Callable[[], TrainingJob], name: str, address: str, timeout: float, patience: float
    ) -> None:
        """For the job of that name; `look` gives it as it stands."""
        self._call, self._look, self._address = call, look, address
        self.job = name
        """The name of its job."""
        self._timeout, self._patience = timeout, patience
        self._kept: dict[int, TrainOnlineRequest] = {}
        self._sent = self._answered = 0
        """The newest step whose batch was sent, and whose answer came."""
        self._has_begun = False
        self._stream: _Stream | None = None
        self._connect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def answered(self) -> int:
        """How many steps the job has taken, as far as is known here: where one goes on who comes back to a job."""
        return self._answered

    def close(self) -> None:
        """Ends the stream. The job waits for the next one."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def step(self, **columns: ArrayLike) -> OnlineStep:
        """Has the job take a step on a mini-batch: an array (batch_size, ...) for each column, such as ``x`` and ``y``.

        Raises InvalidRequest if the job can't take it, DatasetFileError if it is no array of numbers.
        """
        *_, answer = self.steps([columns])
        return answer

    def steps(self, batches: Iterable[Mapping[str, ArrayLike]]) -> Iterator[OnlineStep]:
        """The same for many, up to eight of which are under way at a time; their answers in order."""
        coming = iter(batches)
        more = True
        while more or self._sent != self._answered:
            while more and self._sent - self._answered < MOST_UNANSWERED:
                if (columns := next(coming, None)) is None:
                    more = False
                else:
                    self._send(columns)
            if self._sent != self._answered:
                yield self._answer()

    def finish(self) -> TrainingJob:
        """Ends the job after what was sent, and returns it: its model is in the registry."""
        for _ in self.steps([]):
            pass
        while True:
            stream = self._open_stream()
            stream.send(TrainOnlineRequest(finish=OnlineFinish()))
            try:
                while True:
                    response = stream.receive(self._timeout)
                    if response.HasField("finished"):
                        return response.finished
            except grpc.RpcError as error:
                # It may have got through, and only the answer be lost.
                if error.code() in PASSING and (job := self._look()).state == TrainingJob.SUCCEEDED:
                    return job
                self._recover(error)

    def _send(self, columns: Mapping[str, ArrayLike]) -> None:
        number = self._sent + 1
        request = _request(number, columns)
        stream = self._open_stream()
        self._kept[number], self._sent = request, number
        stream.send(request)

    def _answer(self) -> OnlineStep:
        """The next answer that wasn't here yet."""
        while True:
            try:
                response = self._open_stream().receive(self._timeout)
            except grpc.RpcError as error:
                self._recover(error)
                continue
            step = response.step
            for number in [number for number in self._kept if number <= step.durable_step]:
                del self._kept[number]
            if step.step > self._answered:
                self._answered = step.step
                return step

    def _recover(self, error: grpc.RpcError) -> None:
        """Opens another stream. Raises what broke the last one, if that doesn't pass by itself."""
        self.close()
        if error.code() is grpc.StatusCode.INVALID_ARGUMENT:  # of what wasn't answered something can't be taken
            self._sent = self._answered
        if error.code() not in PASSING:
            raise from_rpc_error(error, self._address) from error
        self._connect()

    def _open_stream(self) -> "_Stream":
        if self._stream is None:
            self._connect()
        assert self._stream is not None  # noqa: S101 - or connecting had raised
        return self._stream

    def _connect(self) -> None:
        """Opens a stream, and sends again what the job has to take once more."""
        began, backoff = time.monotonic(), FIRST_BACKOFF
        while True:
            after = self._answered if self._has_begun else None
            stream = _Stream(self._call, OnlineStart(name=self.job, after_step=after))
            try:
                taken = stream.receive(self._timeout).started.step
                break
            except grpc.RpcError as error:
                stream.close()
                if error.code() not in PASSING or time.monotonic() - began >= self._patience:
                    raise from_rpc_error(error, self._address) from error
            except BaseException:
                stream.close()
                raise
            time.sleep(backoff)
            backoff = min(2 * backoff, LONGEST_BACKOFF)
        self._stream = stream
        if not self._has_begun:
            self._sent, self._answered, self._has_begun = taken, taken, True
        again = range(taken + 1, self._sent + 1)
        if taken > self._sent or any(number not in self._kept for number in again):
            self.close()
            raise FailedPrecondition(
                f"{self.job} has taken {taken} steps, and this session sent {self._sent}: somebody else sends to it",
                grpc.StatusCode.FAILED_PRECONDITION,
            )
        stream.send(*(self._kept[number] for number in again))


class _Stream:
    """An open stream, which a thread reads, so that waiting for a response can have an end."""

    def __init__(self, call: Call, start: OnlineStart) -> None:
        self._requests: queue.SimpleQueue[TrainOnlineRequest | None] = queue.SimpleQueue()
        self._responses: queue.SimpleQueue[TrainOnlineResponse | grpc.RpcError] = queue.SimpleQueue()
        self.send(TrainOnlineRequest(start=start))
        self._call = call(iter(self._requests.get, None))
        threading.Thread(target=self._read, name="online", daemon=True).start()

    def send(self, *requests: TrainOnlineRequest) -> None:
        for request in requests:
            self._requests.put(request)

    def receive(self, timeout: float) -> TrainOnlineResponse:
        """The next response. Raises what ended the stream, or DeadlineExceeded."""
        try:
            response = self._responses.get(timeout=timeout)
        except queue.Empty:
            raise DeadlineExceeded(
                f"the job has not answered within {timeout:g} seconds", grpc.StatusCode.DEADLINE_EXCEEDED
            ) from None
        if isinstance(response, grpc.RpcError):
            raise response
        return response

    def close(self) -> None:
        self._requests.put(None)
        self._call.cancel()

    def _read(self) -> None:
        try:
            for response in self._call:
                self._responses.put(response)
        except grpc.RpcError as error:
            self._responses.put(error)


def _request(number: int, columns: Mapping[str, ArrayLike]) -> TrainOnlineRequest:
    """The message for a mini-batch. Raises DatasetFileError."""
    batch = OnlineBatch(step=number)
    for name, values in columns.items():
        array = np.asarray(values)
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        if array.dtype not in DATATYPES:
            raise DatasetFileError(f"{name!r} is an array of {array.dtype}; must be of numbers")
        shape = np.shape(values)
        batch.tensors.add(name=name, datatype=DATATYPES[array.dtype], shape=shape, data=array.tobytes())
    request = TrainOnlineRequest(batch=batch)
    if (size := request.ByteSize()) > MAX_MESSAGE_BYTES:
        raise DatasetFileError(
            f"the mini-batch has {size:,} bytes; a message may have {MAX_MESSAGE_BYTES:,}: make batch_size smaller"
        )
    return request
