"""Jobs as clients see them: as of now; or watched, their events from a number on, then live, with the progress.

Many may watch the same job: what they are told is read once for all of them.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable

from chainrule.v1 import training_job_pb2 as job_pb
from chainrule.v1 import training_service_pb2 as pb
from service.errors import InvalidArgument, Unavailable
from service.jobs.events import Queued, Running
from service.jobs.job import Job
from service.jobs.jobs import Jobs
from service.wire.job import event_message, job_message, progress_message

EVENTS_AT_ONCE = 500
PROGRESS_SECONDS = 1.0
"""How often those who watch are told of it: all at the same time, so that steps lose their processors seldom. Of
the first step they are told at once."""

HEARTBEAT_SECONDS = 15.0


class Watching:
    """All who watch jobs. A watch is a coroutine that is woken when there are events."""

    def __init__(self, jobs: Jobs, waiting: Callable[[str], str], heartbeat_seconds: float = HEARTBEAT_SECONDS) -> None:
        """Belongs to the running loop. `waiting` tells why a job waits that is queued or runs.

        Whoever has been told nothing for `heartbeat_seconds` gets a heartbeat.
        """
        self._heartbeat_seconds = heartbeat_seconds
        self._jobs = jobs
        self._waiting = waiting
        self._stopping = False
        self._watchers: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._reading: dict[tuple[str, int], asyncio.Future[list[pb.WatchTrainingJobResponse]]] = {}
        """What of their events is read just now: of which job, and after which number."""
        self._ticks = 0
        loop = asyncio.get_running_loop()
        jobs.listen(lambda job_id: _call_soon(loop, self._wake, job_id))
        self._ticking = loop.create_task(self._tick())  # which a loop would forget that nobody else knows

    def describe(self, job: Job) -> job_pb.TrainingJob:
        """The resource, as of now."""
        waiting = self._waiting(job.id) if isinstance(job.state, Queued | Running) else ""
        return job_message(job, progress_message(job, self._jobs.progress(job.id)), waiting)

    async def watch(self, job_id: str, after: int) -> AsyncGenerator[pb.WatchTrainingJobResponse, None]:
        """The events that follow number `after`, each once, and the progress while it changes; ends with the job.

        Raises NotFound, InvalidArgument if there is no such event yet, and Unavailable when the service stops.
        """
        seen = after
        job = self._jobs.get(job_id)
        if not 0 <= seen <= job.last_event:
            raise InvalidArgument.of(
                "after_event", f"is {seen}; {job.name} has the events 1 to {job.last_event} so far"
            )
        changed = asyncio.Event()
        self._watchers[job_id].add(changed)
        try:
            shown, ticks, told = None, -1, time.monotonic()
            while True:
                changed.clear()
                while (job := self._jobs.get(job_id)).last_event > seen:
                    for message in await self._events(job_id, seen):
                        yield message
                        seen, told = message.event.number, time.monotonic()
                if job.has_ended:
                    return
                if self._stopping:
                    # Not a plain end of the stream, which would mean that there are no more events.
                    raise Unavailable("the coordinator is stopping; watch again soon", reason="COORDINATOR_STOPPING")
                if ticks != self._ticks or not (shown and shown.step):
                    ticks = self._ticks
                    progress = progress_message(job, self._jobs.progress(job_id))
                    if progress != shown:
                        yield pb.WatchTrainingJobResponse(progress=progress)
                        shown, told = progress, time.monotonic()
                if time.monotonic() - told >= self._heartbeat_seconds:
                    yield pb.WatchTrainingJobResponse(heartbeat=pb.Heartbeat())
                    told = time.monotonic()
                await changed.wait()
        finally:
            self._watchers[job_id].discard(changed)
            if not self._watchers[job_id]:
                del self._watchers[job_id]

    def stop(self) -> None:
        """Ends every watch so that its client knows to come back."""
        self._stopping = True
        for job_id in list(self._watchers):
            self._wake(job_id)

    async def _events(self, job_id: str, after: int) -> list[pb.WatchTrainingJobResponse]:
        """Some of the events after a number, in order."""

        def read() -> list[pb.WatchTrainingJobResponse]:
            records = self._jobs.events(job_id, after, EVENTS_AT_ONCE)
            return [pb.WatchTrainingJobResponse(event=event_message(job_id, record)) for record in records]

        key = (job_id, after)
        if key not in self._reading:
            self._reading[key] = asyncio.ensure_future(asyncio.to_thread(read))
            self._reading[key].add_done_callback(lambda _: self._reading.pop(key))
        return await asyncio.shield(self._reading[key])  # others go on with it if this one is cancelled

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(min(PROGRESS_SECONDS, self._heartbeat_seconds))
            self._ticks += 1
            for job_id in self._watchers:
                self._wake(job_id)

    def _wake(self, job_id: str) -> None:
        for watcher in self._watchers.get(job_id, ()):
            watcher.set()


def _call_soon(loop: asyncio.AbstractEventLoop, call: Callable[[str], None], job_id: str) -> None:
    """From any thread; nothing once the service has stopped."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(call, job_id)
