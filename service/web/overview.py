"""All jobs at a glance, in JSON: made once for all who look, and at most once a second."""

import asyncio
import json
import time
from collections import Counter

from google.protobuf import json_format
from google.protobuf.message import Message

from service.api.watching import Watching
from service.jobs.events import STATES
from service.jobs.job import Job
from service.jobs.jobs import Jobs

MOST_JOBS = 100
"""How many are shown: those at work first, then the newest."""

FRESH_SECONDS = 1.0


class Overview:
    """What there is to see of the jobs."""

    def __init__(self, jobs: Jobs, watching: Watching) -> None:
        self._jobs = jobs
        self._watching = watching
        self._making = asyncio.Lock()
        self._made = -FRESH_SECONDS
        self._text = ""
        self._texts: dict[str, tuple[Job, str]] = {}

    async def text(self) -> str:
        """The overview: "states", how many jobs are in each, and "jobs", each a TrainingJob without what is long."""
        async with self._making:
            if time.monotonic() - self._made >= FRESH_SECONDS:
                self._text = await asyncio.to_thread(self._make)
                self._made = time.monotonic()
            return self._text

    def _make(self) -> str:
        jobs = self._jobs.all()
        states: Counter[str] = Counter(job.state.kind for job in jobs)
        shown = sorted(jobs, key=lambda job: (job.is_at_work, job.created, job.id), reverse=True)[:MOST_JOBS]
        self._texts = {job.id: self._described(job) for job in shown}
        counts = json.dumps({state: states[state] for state in STATES})
        return f'{{"states":{counts},"jobs":[{",".join(text for _, text in self._texts.values())}]}}'

    def _described(self, job: Job) -> tuple[Job, str]:
        """A job and its text, which stays as it was once the job has ended."""
        if job.has_ended and (known := self._texts.get(job.id)) and known[0] is job:
            return known
        message = self._watching.describe(job)
        message.ClearField("spec")
        message.ClearField("result")
        return job, in_line(message)


def in_line(message: Message) -> str:
    """A message as JSON in one line."""
    return json_format.MessageToJson(message, indent=None)
