"""A coordinator that really serves, in a thread, and what a client needs to talk to it."""

import asyncio
import hashlib
import io
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf import json_format
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from chainrule.v1 import dataset_service_pb2 as datasets_pb
from chainrule.v1 import dataset_service_pb2_grpc as datasets_grpc
from chainrule.v1 import model_service_pb2_grpc as models_grpc
from chainrule.v1 import training_event_pb2 as event_pb
from chainrule.v1 import training_job_pb2 as job_pb
from chainrule.v1 import training_service_pb2 as pb
from chainrule.v1 import training_service_pb2_grpc as training_grpc
from service.__main__ import coordinator
from service.cluster.cluster import Cluster
from service.cluster.local_cluster import LocalCluster
from service.settings import Settings

SECONDS = 30.0
"""How long anything may take before a test gives up on it."""

ROWS = 40
ENDED = (job_pb.TrainingJob.SUCCEEDED, job_pb.TrainingJob.FAILED, job_pb.TrainingJob.CANCELLED)


@dataclass
class Service:
    """A client's view of a coordinator."""

    channel: grpc.Channel
    addresses: dict[str, str]
    stop: Callable[[], object]
    """Has the coordinator stop, as a signal would. Leaving the context waits for it."""
    training: training_grpc.TrainingServiceStub = field(init=False)
    datasets: datasets_grpc.DatasetServiceStub = field(init=False)
    models: models_grpc.ModelServiceStub = field(init=False)

    def __post_init__(self) -> None:
        self.training = training_grpc.TrainingServiceStub(self.channel)
        self.datasets = datasets_grpc.DatasetServiceStub(self.channel)
        self.models = models_grpc.ModelServiceStub(self.channel)

    def create(self, **changes: Any) -> job_pb.TrainingJob:
        return self.training.CreateTrainingJob(request(**changes), timeout=SECONDS)

    def get(self, name: str) -> job_pb.TrainingJob:
        return self.training.GetTrainingJob(pb.GetTrainingJobRequest(name=name), timeout=SECONDS)

    def cancel(self, name: str) -> job_pb.TrainingJob:
        return self.training.CancelTrainingJob(pb.CancelTrainingJobRequest(name=name), timeout=SECONDS)

    def delete(self, name: str) -> None:
        self.training.DeleteTrainingJob(pb.DeleteTrainingJobRequest(name=name), timeout=SECONDS)

    def watch(self, name: str, after_event: int = 0) -> Any:
        return self.training.WatchTrainingJob(
            pb.WatchTrainingJobRequest(name=name, after_event=after_event), timeout=SECONDS
        )

    def events(self, name: str, after_event: int = 0) -> list[event_pb.TrainingEvent]:
        """All events to the job's end."""
        return [update.event for update in self.watch(name, after_event) if update.HasField("event")]

    def end(self, name: str) -> job_pb.TrainingJob:
        """The job once it has ended."""
        self.events(name)
        return self.get(name)

    def upload(self, dataset_id: str, data: bytes, **header: Any) -> datasets_pb.Dataset:
        return self.send([head(dataset_id, data, **header), *parts(data)])

    def send(self, messages: Sequence[datasets_pb.UploadDatasetRequest]) -> datasets_pb.Dataset:
        return self.datasets.UploadDataset(iter(messages), timeout=SECONDS)

    def everything(self) -> list[str]:
        """All there is, by name and as it stands, to see that nothing changed."""
        jobs = self.training.ListTrainingJobs(pb.ListTrainingJobsRequest(), timeout=SECONDS).training_jobs
        datasets = self.datasets.ListDatasets(datasets_pb.ListDatasetsRequest(), timeout=SECONDS).datasets
        return [*(f"{job.name} {job.state} {job.last_event}" for job in jobs), *map(str, datasets)]


@contextmanager
def serving(directory: Path, cluster: Cluster | None = None, **settings: Any) -> Iterator[Service]:
    """A coordinator on a directory. Leaving the context stops it."""
    given = Settings(data_dir=directory, **{"listen": "127.0.0.1:0", "metrics_listen": "127.0.0.1:0", **settings})
    loop, ready = asyncio.new_event_loop(), threading.Event()
    addresses: dict[str, str] = {}
    stopping = asyncio.Event()
    failed: list[BaseException] = []

    def stop() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(stopping.set)

    async def run() -> None:
        async with coordinator(given, cluster or LocalCluster()) as found:
            addresses.update(found)
            ready.set()
            await stopping.wait()

    def main() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(run())
        except BaseException as error:
            failed.append(error)
            ready.set()
            raise

    thread = threading.Thread(target=main)
    thread.start()
    try:
        assert ready.wait(SECONDS)
        assert not failed, failed
        # Where it speaks TLS, a test makes clients of its own.
        with grpc.insecure_channel(addresses["grpc"].removeprefix("grpcs://")) as channel:
            yield Service(channel, addresses, stop)
    finally:
        stop()
        thread.join(SECONDS)
        assert not thread.is_alive()
    assert not failed, failed


# Requests

SPEC = {
    "data": {"dataset": "datasets/flowers"},
    "network": {"layers": [{"dense": {"units": 4}}, {"relu": {}}, {"dense": {"units": 3}}]},
    "loss": {"softmaxCrossEntropy": {}},
    "optimizer": {"learningRate": 0.05, "momentum": {}},
    "epochs": 3,
    "batchSize": 8,
}


def request(**changes: Any) -> pb.CreateTrainingJobRequest:
    """A request that is right, but for fields named by their path with "__" for a dot, which None clears."""
    made = pb.CreateTrainingJobRequest()
    json_format.ParseDict({"trainingJob": {"spec": SPEC}}, made)
    for path, value in changes.items():
        *parents, last = path.split("__")
        target: Any = made if path in ("request_id", "validate_only") else made.training_job
        if target is made.training_job and path != "display_name":
            target = target.spec
        for parent in parents:
            target = target[int(parent)] if parent.isdecimal() else getattr(target, parent)
        if value is None:
            target.ClearField(last)
        else:
            setattr(target, last, value)
    return made


def npz(**columns: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **columns)
    return file.getvalue()


_random = np.random.default_rng(6)
X = _random.standard_normal((ROWS, 4)).astype(np.float32)
Y = _random.integers(3, size=ROWS)
FLOWERS = npz(x=X, y=Y)


def head(dataset_id: str, data: bytes, **changes: Any) -> datasets_pb.UploadDatasetRequest:
    """The first message of an upload."""
    fields: dict[str, Any] = {
        "format": datasets_pb.Dataset.NPZ,
        "size_bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    header = datasets_pb.UploadDatasetHeader(dataset_id=dataset_id, **{**fields, **changes})
    return datasets_pb.UploadDatasetRequest(header=header)


def parts(data: bytes, size: int = 500) -> list[datasets_pb.UploadDatasetRequest]:
    """The other messages of an upload."""
    return [part(offset, data[offset : offset + size]) for offset in range(0, len(data), size)]


def part(offset: int, data: bytes) -> datasets_pb.UploadDatasetRequest:
    return datasets_pb.UploadDatasetRequest(chunk=datasets_pb.DatasetChunk(offset=offset, data=data))


# Refusals


@dataclass(frozen=True)
class Refusal:
    """What a client is told about a call that was refused."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    domain: str = ""
    fields: dict[str, str] = field(default_factory=dict)


def refusal(call: Callable[[], object]) -> Refusal:
    """Makes a call that must be refused."""
    try:
        call()
    except grpc.RpcError as error:
        return refused(error)
    raise AssertionError("it was not refused")


def refused(error: Any) -> Refusal:
    """What an error says; every error of a call is the call itself."""
    status: Any = rpc_status.from_call(error)
    info, wrong = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details if status else ():
        detail.Unpack(info)
        detail.Unpack(wrong)
    fields = {violation.field: violation.description for violation in wrong.field_violations}
    return Refusal(error.code(), error.details() or "", info.reason, info.domain, fields)
