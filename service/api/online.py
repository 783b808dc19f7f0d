"""Streams of mini-batches: what a client sends goes to its job's trainer, and what became of it goes back.

A stream is two coroutines. One reads a batch once there is room for it, so that a client which sends more is held up by
gRPC's flow control; the other waits for answers. What blocks runs in threads that streams have to themselves.
"""

import asyncio
import contextvars
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias, TypeVar

from chainrule.v1 import online_pb2 as pb
from chainrule.v1 import training_job_pb2 as job_pb
from service.access.principals import require_owner
from service.data.columns import describe
from service.data.datasets import Dataset
from service.errors import Aborted, FailedPrecondition, InvalidArgument, ResourceExhausted, Unavailable
from service.jobs.events import Failed, Paused, Running
from service.jobs.job import Job
from service.jobs.jobs import Jobs
from service.jobs.spec import JobSpec
from service.training.arrivals import MOST_UNANSWERED, Answers, Feed, TrainerGone
from service.training.tables import check_lengths
from service.training.task import check_batch, make_task, rows_to_come
from service.wire.names import require_name
from service.wire.online import require_batch, step_message
from worker.gradient import Batch
from worker.network import Network

MOST_STREAMS = 32
"""At a time, of all clients: each has two threads."""

FIRST_SECONDS = 60.0
"""How long a stream may take to say which job it is about."""

READY_SECONDS = 300.0
"""How long to wait for a job's trainer, as while the job is queued."""

ANSWER_SECONDS = 0.5
"""How often to look, while no answer comes, whether the job still goes on."""

LOOK_SECONDS = 0.05
END_SECONDS = 120.0
"""How long the end of a job may take, whose model is written then."""

T = TypeVar("T")


class OnlineStreams:
    """All streams by which clients send mini-batches to jobs."""

    def __init__(
        self,
        jobs: Jobs,
        feed: Callable[[str], Feed | None],
        describe_job: Callable[[Job], job_pb.TrainingJob],
        silence_seconds: float,
    ) -> None:
        """`feed` tells where mini-batches for a job go, None while it has no trainer."""
        self._jobs = jobs
        self._feed = feed
        self._describe = describe_job
        self._silence_seconds = silence_seconds
        self._open: dict[str, object] = {}
        """By job id, what the stream is known by that sends to it."""
        self._threads = ThreadPoolExecutor(2 * MOST_STREAMS, "online")
        self._reading: set[asyncio.Task[Any]] = set()

    def waiting(self, job_id: str) -> str:
        """Why a running job waits, if it is for a client; "" if it isn't."""
        job = self._jobs.get(job_id)
        if job.spec.online is None or not isinstance(job.state, Running) or job_id in self._open:
            return ""
        return f"waits for a client to send mini-batches; is paused when none has come for {self._silence_seconds:g} s"

    async def serve(
        self, messages: AsyncIterator[pb.TrainOnlineRequest], at_end: Callable[[Callable[[object], None]], None]
    ) -> AsyncGenerator[pb.TrainOnlineResponse]:
        """The answers to what a client sends. Raises what refuses it; Unavailable or Aborted to have it come again.

        `at_end` has something called when the call is over. A generator that its client left is closed later than that.
        """
        first_one = self._keep(_next(messages))
        await asyncio.wait([first_one], timeout=FIRST_SECONDS)
        if not first_one.done():
            raise Aborted(f"nothing came for {FIRST_SECONDS:g} seconds", reason="ONLINE_SILENT")
        first = first_one.result()
        if first is None or not first.HasField("start"):
            raise InvalidArgument.of("payload", "must begin with a start, which names the job")
        start = first.start
        job = self._wanted(require_name(start.name, "jobs", "start.name"), start)
        if job.id in self._open:
            raise Aborted(
                f"another stream sends to {job.name}; try again once it has ended", reason="ONLINE_STREAM_OPEN"
            )
        if len(self._open) >= MOST_STREAMS:
            raise ResourceExhausted(
                f"{MOST_STREAMS} clients send mini-batches, as many as may; try again later", reason="TOO_MANY_STREAMS"
            )
        self._open[job.id] = messages
        at_end(lambda _: self._release(job.id, messages))
        try:
            feed, answers = await self._ready(job)
            job = self._jobs.get(job.id)
            started = pb.OnlineStarted(training_job=self._describe(job), step=answers.step)
            yield pb.TrainOnlineResponse(started=started)
            network = await self._in_thread(_network, job.spec)
            stream = _Stream(job, network, feed, answers.step, self._in_thread)
            # What is taken again, since no checkpoint had it, is answered again.
            told = min(start.after_step, answers.step) if start.HasField("after_step") else answers.step
            reading = self._keep(stream.read(messages))
            try:
                while not (reading.done() and told >= stream.accepted):
                    # Not before the last answer is there: with the end of the job its trainer goes, and they with it.
                    answers = await self._answers(job.id, feed, told) or answers
                    for taken in answers.taken:
                        if taken.step > told:
                            yield step_message(taken, answers.durable)
                            stream.has_answered(taken.step)
                    told = max(told, answers.step)
                await reading
            finally:
                stream.stop()
            if stream.wants_end:
                await self._in_thread(feed.finish, stream.accepted)
                yield pb.TrainOnlineResponse(finished=self._describe(await self._ended(job)))
        except TrainerGone:
            raise await self._why_gone(job.id) from None
        finally:
            self._release(job.id, messages)

    def _release(self, job_id: str, stream: object) -> None:
        if self._open.get(job_id) is stream:
            del self._open[job_id]

    def _wanted(self, job_id: str, start: pb.OnlineStart) -> Job:
        """The job that a stream is about. Raises what forbids that."""
        job = self._jobs.get(job_id)
        require_owner(job.name, job.created_by)
        if job.spec.online is None:
            raise FailedPrecondition(
                f"{job.name} learns from {job.spec.dataset or 'episodes'}; only one whose data is online takes batches",
                reason="JOB_NOT_ONLINE",
            )
        if start.after_step < 0:
            raise InvalidArgument.of("start.after_step", f"is {start.after_step}; must be 0 or more")
        _require_unfinished(job)
        return job

    async def _ready(self, job: Job) -> tuple[Feed, Answers]:
        """Resumes the job if it is paused, and waits until its trainer is there and has nothing to do."""
        if isinstance(job.state, Paused):
            await self._in_thread(self._jobs.resume, job.id)
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            job = self._jobs.get(job.id)
            _require_unfinished(job)
            if isinstance(job.state, Paused):
                raise _paused(job, job.state)
            feed = self._feed(job.id) if isinstance(job.state, Running) else None
            with suppress(TrainerGone):
                answers = await self._in_thread(feed.answers, -1, ANSWER_SECONDS) if feed else None
                if feed and answers and not answers.waiting:
                    return feed, answers
            await asyncio.sleep(LOOK_SECONDS)
        raise Unavailable(
            f"{job.name} is {job.state.kind}, and has no workers yet; open the stream again", reason="JOB_NOT_STARTED"
        )

    async def _answers(self, job_id: str, feed: Feed, told: int) -> Answers | None:
        """What is new; None if nothing is. Raises what has ended the job meanwhile, or TrainerGone."""
        answers = await self._in_thread(feed.answers, told, ANSWER_SECONDS)
        if answers and answers.step > told:
            return answers
        job = self._jobs.get(job_id)
        if isinstance(job.state, Running) or not (job.has_ended or isinstance(job.state, Paused)):
            return None
        raise TrainerGone

    async def _why_gone(self, job_id: str) -> Aborted | Unavailable | FailedPrecondition:
        """Why a job's trainer has ended, once that is known."""
        job = self._jobs.get(job_id)
        revision, deadline = job.revision, time.monotonic() + END_SECONDS
        while isinstance(job.state, Running) and job.revision == revision and time.monotonic() < deadline:
            await asyncio.sleep(LOOK_SECONDS)
            job = self._jobs.get(job_id)
        with suppress(FailedPrecondition):
            _require_unfinished(job)
            if isinstance(job.state, Paused):
                return _paused(job, job.state)
            return Unavailable(
                f"{job.name} goes on from its last checkpoint; open the stream again", reason="TRAINER_LOST"
            )
        return _ended(job)

    async def _ended(self, job: Job) -> Job:
        """The job once it has succeeded."""
        deadline = time.monotonic() + END_SECONDS
        while not job.has_ended and time.monotonic() < deadline:
            await asyncio.sleep(LOOK_SECONDS)
            job = self._jobs.get(job.id)
        if isinstance(job.state, Failed):
            raise _ended(job)
        return job

    def _keep(self, reading: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that reads of a stream, and ends with it.

        It isn't cancelled: what gRPC was asked to read it goes on reading, and the end of the call is the end of that.
        """
        task = asyncio.create_task(reading)
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)
        # One that nobody waits for any more may fail as it likes.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def _in_thread(self, call: Callable[..., T], *arguments: object) -> T:
        # With the context, which says on whose behalf.
        run = contextvars.copy_context().run
        return await asyncio.get_running_loop().run_in_executor(self._threads, run, call, *arguments)


InThread: TypeAlias = Callable[..., Awaitable[Any]]


@dataclass
class _Stream:
    """What a client sends, from the start on."""

    job: Job
    network: Network
    feed: Feed
    accepted: int
    """The number of the newest step whose rows were handed over."""
    in_thread: InThread
    wants_end: bool = False
    """Whether the client has said that no more come."""

    _is_over: bool = False

    def __post_init__(self) -> None:
        self._first = self.accepted
        self._room = asyncio.Semaphore(MOST_UNANSWERED)

    async def read(self, messages: AsyncIterator[pb.TrainOnlineRequest]) -> None:
        """Hands over what comes, to the end of the stream or of the job. Raises InvalidArgument or TrainerGone."""
        while True:
            await self._room.acquire()
            message = None if self._is_over else await _next(messages)
            if message is None or self._is_over:
                return
            if message.HasField("batch"):
                batch = await self.in_thread(self._batch, message.batch)
                await self.in_thread(self.feed.put, self.accepted, batch)
                self.accepted += 1
            elif not message.HasField("finish"):
                raise InvalidArgument.of("payload", "must be a batch, or finish; the start comes once, and first")
            elif self.accepted == 0:
                raise FailedPrecondition(
                    f"{self.job.name} has taken no step, so that there is no model; send a batch, or cancel the job",
                    reason="NO_STEP",
                )
            else:
                self.wants_end = True
                return

    def stop(self) -> None:
        """Takes nothing any more."""
        self._is_over = True
        self._room.release()

    def has_answered(self, step: int) -> None:
        """Makes room for another batch, if the answer was to one of this stream."""
        if step > self._first:
            self._room.release()

    def _batch(self, message: pb.OnlineBatch) -> Batch:
        spec, step = self.job.spec, self.accepted + 1
        if step > self.job.total_steps:
            raise InvalidArgument.of(
                "batch.step", f"is beyond the job's {self.job.total_steps:,} steps ({spec.epochs:,} epochs); finish it"
            )
        arrays = require_batch(message, spec, step)
        columns = tuple(describe(name, array) for name, array in zip(spec.arriving, arrays, strict=True))
        described = Dataset("batch", spec.batch_size, columns, 0, "", datetime.min)
        check_batch(spec, self.network, described, "batch.tensors")
        if spec.padding is not None:
            check_lengths(arrays[0], spec.padding, spec.input_column, "batch.tensors")
        return Batch(*arrays)


async def _next(messages: AsyncIterator[pb.TrainOnlineRequest]) -> pb.TrainOnlineRequest | None:
    return await anext(messages, None)


def _network(spec: JobSpec) -> Network:
    return make_task(spec, rows_to_come(spec, spec.online), "spec").network if spec.online else Network((), ())


def _require_unfinished(job: Job) -> None:
    """Raises FailedPrecondition if the job has ended."""
    if job.has_ended:
        raise _ended(job)


def _ended(job: Job) -> FailedPrecondition:
    why = f": {job.state.message}" if isinstance(job.state, Failed) else ""
    return FailedPrecondition(f"{job.name} has ended: it is {job.state.kind}{why}", reason="JOB_HAS_ENDED")


def _paused(job: Job, state: Paused) -> Aborted | FailedPrecondition:
    if state.reason:
        return Aborted(f"{job.name} is paused: {state.reason}; open the stream again", reason="ONLINE_SILENT")
    return FailedPrecondition(
        f"{job.name} was paused; a new stream that names it, or ResumeTrainingJob, has it go on", reason="JOB_PAUSED"
    )
