"""Fifty clients that watch a job, and a scrape of the metrics a second: how much slower is a step?

The clients are a process of their own, of the lowest priority, and do as little as they can with what they are told: on
a machine of two cores their own work would otherwise be counted as the service's.

    python -m benchmarks.watching ADDRESS METRICS_URL JOB CLIENTS       watches until standard input ends
"""

import asyncio
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from statistics import median
from typing import Any

import grpc

from benchmarks.cases import Case
from benchmarks.contenders import ROOT
from benchmarks.ours import Service, progress
from chainrule.v1.training_service_pb2 import WatchTrainingJobRequest
from chainrule.v1.training_service_pb2_grpc import TrainingServiceStub

CLIENTS = 50

WAITED_SECONDS = 0.05
"""What took longer to come wasn't there already."""


def slowdown(service: Service, case: Case, seconds: float, rounds: int) -> float:
    """The share of a step's speed that is lost while clients watch, from turns without and with them."""
    job = service.create(case)
    samples = progress(service, job)
    next(count for count in samples if count >= case.rows)
    ratios = []
    for _ in range(rounds):
        alone = _speed(samples, seconds)
        address, metrics = service.coordinator.address, service.coordinator.metrics
        command = [sys.executable, "-m", "benchmarks.watching", address, metrics, job.name, str(CLIENTS)]
        environment = dict(os.environ) | {"PYTHONPATH": str(ROOT)}
        with subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as watchers:
            assert watchers.stdout is not None  # noqa: S101 - it was opened with a pipe
            watchers.stdout.readline()
            ratios.append(1 - _speed(samples, seconds) / alone)
            watchers.communicate()
        if watchers.returncode:
            raise SystemExit("a watch ended before the job did")
    service.end(job)
    return median(ratios)


async def watch(address: str, metrics: str, job: str, clients: int) -> None:
    """Opens the watches, each with a connection of its own, and scrapes once a second.

    Says so when all have heard what came to pass before them, and are told of the present.
    """
    os.nice(19)

    async def follow(present: asyncio.Event) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(address, options) as channel:
            stub: Any = TrainingServiceStub(channel)
            async for told in stub.WatchTrainingJob(WatchTrainingJobRequest(name=job)):
                if told.HasField("progress"):
                    present.set()

    def scrape() -> None:
        with urllib.request.urlopen(metrics) as response:  # noqa: S310 - the coordinator's own endpoint
            response.read()

    presents = [asyncio.Event() for _ in range(clients)]
    watches = [asyncio.create_task(follow(present)) for present in presents]
    await asyncio.gather(*(present.wait() for present in presents))
    print("watching", flush=True)
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    while not ended.done():
        await asyncio.wait([ended, *watches], timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
        if any(watch.done() for watch in watches):
            os._exit(1)
        await asyncio.to_thread(scrape)
    os._exit(0)


def _speed(samples: Iterator[int], seconds: float) -> float:
    """Samples a second over some seconds, from now on: what was told before, and not yet read, is left out."""
    marks: list[tuple[float, int]] = []
    read = time.monotonic()
    for count in samples:
        now = time.monotonic()
        if marks or now - read > WAITED_SECONDS:
            marks.append((now, count))
        if marks and now - marks[0][0] >= seconds:
            (began, before), (ended, after) = marks[0], marks[-1]
            return (after - before) / (ended - began)
        read = now
    raise AssertionError("the job goes on for ever")


if __name__ == "__main__":
    asyncio.run(watch(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
