"""Many clients at once, each with a connection of its own: they create jobs, watch them to their end, and predict.

    python -m benchmarks.load                                 200 clients, on a coordinator started for it
    python -m benchmarks.load --clients 50 --jobs 4           fewer, with more jobs each
    python -m benchmarks.load --server HOST:PORT              on one that is running

Prints what calls took and how they ended, and holds what was promised: every job that was acknowledged is there and has
ended well, and every watcher has seen all events, each once.
"""

import argparse
import asyncio
import functools
import sys
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import numpy as np
from google.protobuf.json_format import ParseDict

from chainrule import Client
from chainrule.coordinator import embedded
from chainrule.inference import open_inference_pb2 as inference_pb
from chainrule.inference import open_inference_pb2_grpc as inference_grpc
from chainrule.samples import make_sample
from chainrule.v1 import training_service_pb2 as pb
from chainrule.v1 import training_service_pb2_grpc as training_grpc
from chainrule.v1.training_job_pb2 import TrainingJob, TrainingJobSpec

CALL_SECONDS = 60.0
MOST_CLIENTS = 400
"""As many watch at once; a principal may have 500 calls at a time."""
PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED)
PAUSE_SECONDS = 0.5
FEATURES = 64
SPEC = {
    "data": {"dataset": "datasets/digits"},
    "network": {"layers": [{"dense": {"units": 10}}]},
    "loss": {"softmax_cross_entropy": {}},
    "epochs": 1,
    "workers": 1,
}
"""A tiny job: 23 steps of 64-10."""


@dataclass
class Tally:
    """What calls took and how they ended, by method, and what clients were promised."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    codes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    events: dict[str, list[int]] = field(default_factory=dict)
    """The numbers that the watcher of each acknowledged job has seen."""

    async def call(self, method: str, make: Callable[[], Awaitable[Any]]) -> Any:
        """Makes a call, again if what refuses it passes; the time is that of the call that was answered."""
        while True:
            begin = time.perf_counter()
            try:
                answer = await make()
            except grpc.aio.AioRpcError as error:
                self.codes[method][error.code().name] += 1
                if error.code() not in PASSING:
                    raise
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                self.note(method, begin)
                return answer

    def note(self, method: str, begin: float) -> None:
        """Counts a call that went well."""
        self.seconds[method].append(time.perf_counter() - begin)
        self.codes[method]["OK"] += 1

    def lines(self) -> Iterator[str]:
        """A table."""
        yield f"{'method':<20} {'calls':>8} {'p50':>10} {'p99':>10}   how they ended"
        for method, codes in self.codes.items():
            p50, p99 = np.percentile(self.seconds[method] or [np.nan], [50, 99]) * 1e3
            ended = ", ".join(f"{code} {count:,}" for code, count in codes.most_common())
            yield f"{method:<20} {codes.total():>8,} {p50:>7,.1f} ms {p99:>7,.1f} ms   {ended}"


async def client(address: str, tally: Tally, jobs: int) -> None:
    """One client: creates a job, predicts while it watches that to its end, and so on."""
    # Without a pool of its own, channels to the same address would share one connection.
    async with grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        training: Any = training_grpc.TrainingServiceStub(channel)
        for number in range(jobs):
            # The same id if it must be repeated, so that it makes one job however often.
            request = pb.CreateTrainingJobRequest(request_id=str(uuid.uuid4()))
            request.training_job.spec.CopyFrom(tiny(seed=number))
            create = functools.partial(training.CreateTrainingJob, request, timeout=CALL_SECONDS)
            job = await tally.call("CreateTrainingJob", create)
            tally.events[job.name] = []
            watching = asyncio.create_task(watch(training, job.name, tally))
            await predict(channel, tally, watching)
            await watching


async def watch(training: Any, name: str, tally: Tally) -> None:
    """Watches a job to its end, and goes on after the last event when the stream breaks off.

    What it takes is the time to the first answer.
    """
    seen = tally.events[name]
    while True:
        begin, first = time.perf_counter(), True
        asked = pb.WatchTrainingJobRequest(name=name, after_event=seen[-1] if seen else 0)
        try:
            async for update in training.WatchTrainingJob(asked):
                if first:
                    tally.note("WatchTrainingJob", begin)
                    first = False
                if update.HasField("event"):
                    seen.append(update.event.number)
        except grpc.aio.AioRpcError as error:
            tally.codes["WatchTrainingJob"][error.code().name] += 1
            if error.code() not in PASSING:
                raise
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            return


async def predict(channel: grpc.aio.Channel, tally: Tally, watching: "asyncio.Task[None]") -> None:
    """Asks the model that was trained before, every second until the job has ended, at least once."""
    stub: Any = inference_grpc.GRPCInferenceServiceStub(channel)
    request = inference_pb.ModelInferRequest(model_name="@load", raw_input_contents=[bytes(4 * FEATURES)])
    request.inputs.add(name="x", datatype="FP32", shape=[1, FEATURES])
    infer = functools.partial(stub.ModelInfer, request, timeout=CALL_SECONDS)
    while True:
        await tally.call("ModelInfer", infer)
        if (await asyncio.wait([watching], timeout=1.0))[0]:
            return


def tiny(seed: int) -> TrainingJobSpec:
    """A job that is over in a moment."""
    return ParseDict({**SPEC, "seed": seed}, TrainingJobSpec())


def lost(service: Client, tally: Tally) -> list[str]:
    """What was promised and not kept, in words."""
    found = {job.name: job for job in service.jobs(page_size=1_000)}
    problems = []
    for name, seen in tally.events.items():
        if name not in found:
            problems.append(f"{name} was acknowledged and is not there")
        elif found[name].state != TrainingJob.SUCCEEDED:
            problems.append(f"{name} is {TrainingJob.State.Name(found[name].state)}")
        elif seen != list(range(1, found[name].last_event + 1)):
            problems.append(f"of the {found[name].last_event} events of {name} its watcher saw {seen}")
    return problems


def main() -> int:
    """Returns 1 if anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=200, choices=range(1, MOST_CLIENTS + 1), metavar="COUNT")
    parser.add_argument("--jobs", type=int, default=1, help="how many each client creates, one after the other")
    parser.add_argument("--seconds", type=float, default=600.0, help="after which it is given up")
    parser.add_argument("--server", help="a coordinator that is running; by default one is started")
    options = parser.parse_args()
    with server(options.server) as address, Client(address) as service:
        service.upload_dataset(make_sample("digits"), "digits")
        first = service.create_job(tiny(seed=0))
        service.set_model_alias("load", service.wait(first.name).result.model)
        tally, begin = Tally(), time.perf_counter()

        async def all_clients() -> None:
            async with asyncio.timeout(options.seconds), asyncio.TaskGroup() as group:
                for _ in range(options.clients):
                    group.create_task(client(address, tally, options.jobs))

        asyncio.run(all_clients())
        took = time.perf_counter() - begin
        problems = lost(service, tally)
    print("\n".join(tally.lines()))
    events = sum(map(len, tally.events.values()))
    print(f"{options.clients} clients, {len(tally.events)} jobs and {events:,} events in {took:.1f} s")
    print("\n".join(problems) or "nothing was lost")
    return int(bool(problems))


@contextmanager
def server(address: str | None) -> Iterator[str]:
    """A coordinator: the one that is named, or one for this run."""
    if address:
        yield address
        return
    with TemporaryDirectory() as directory, embedded(Path(directory)) as started:
        yield started.address


if __name__ == "__main__":
    sys.exit(main())
