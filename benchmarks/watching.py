"""Fifty clients that watch a job, and a scrape of the metrics a second: how much slower is a step?

The clients are a process of their own, of the lowest priority: on a machine of two cores their own work would otherwise
be counted as the service's.

    python -m benchmarks.watching ADDRESS METRICS_URL JOB CLIENTS       watches until standard input ends
"""

import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from statistics import median

from benchmarks.cases import Case
from benchmarks.contenders import ROOT
from benchmarks.ours import Service, progress
from chainrule.client import Client
from chainrule.errors import ServiceError
from chainrule.v1.training_job_pb2 import TrainingProgress

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
    service.end(job)
    return median(ratios)


def watch(address: str, metrics: str, job: str, clients: int) -> None:
    """Opens the watches, each with a connection of its own, and scrapes once a second.

    Says so when all have heard what came to pass before them, and are told of the present.
    """
    os.nice(19)

    def follow() -> None:
        with Client(address) as client:
            try:
                watched = client.watch(job)
                next(each for each in watched if isinstance(each, TrainingProgress))
                begun.release()
                for _ in watched:
                    pass
            except ServiceError:
                return

    def wait_for_end() -> None:
        sys.stdin.read()
        ended.set()

    begun, ended = threading.Semaphore(0), threading.Event()
    for _ in range(clients):
        threading.Thread(target=follow, daemon=True).start()
    for _ in range(clients):
        begun.acquire()
    print("watching", flush=True)
    threading.Thread(target=wait_for_end, daemon=True).start()
    while not ended.wait(1.0):
        with urllib.request.urlopen(metrics) as response:  # noqa: S310 - the coordinator's own endpoint
            response.read()
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
    watch(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
