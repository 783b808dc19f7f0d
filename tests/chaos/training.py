"""Jobs on handwritten digits, followed to their end whatever happens on the way, and the laws that they must keep."""

import hashlib
import io
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from google.protobuf import json_format
from sklearn.datasets import load_digits

from chainrule.v1 import dataset_service_pb2 as datasets
from chainrule.v1 import dataset_service_pb2_grpc as dataset_stubs
from chainrule.v1 import training_event_pb2 as event_pb
from chainrule.v1 import training_job_pb2 as pb
from chainrule.v1 import training_service_pb2 as training
from chainrule.v1 import training_service_pb2_grpc as training_stubs
from tests.chaos.coordinator import SECONDS, Coordinator, NotSurvived, until

CHUNK_BYTES = 1 << 20
State = pb.TrainingJob.State
ENDED = (State.SUCCEEDED, State.FAILED, State.CANCELLED)
DIGITS: Mapping[str, Any] = {
    "data": {"dataset": "datasets/digits"},
    "network": {"layers": [{"dense": {"units": 64}}, {"relu": {}}, {"dense": {"units": 10}}]},
    "loss": {"softmaxCrossEntropy": {}},
    "optimizer": {"learningRate": 0.002},
    "seed": 7,
    "workers": 2,
}


@dataclass(frozen=True)
class Epoch:
    """What an epoch must be, however often it was begun."""

    epoch: int
    step: int
    training_loss: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float


@dataclass(frozen=True)
class Yardstick:
    """What an undisturbed job came to."""

    parameters_sha256: str
    epochs: list[Epoch]


class Client:
    """Calls a coordinator, and calls again while it is away."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.coordinator = coordinator

    def upload_digits(self) -> None:
        """Uploads the dataset "digits"."""
        digits, file = load_digits(), io.BytesIO()
        np.savez(file, x=(digits.data / 16).astype(np.float32), y=digits.target)
        self._datasets().UploadDataset(_upload("digits", file.getvalue()), timeout=SECONDS)

    def create(self, spec: Mapping[str, Any], display_name: str = "") -> "Following":
        """Creates a job, and follows it."""
        job = pb.TrainingJob(spec=json_format.ParseDict(dict(spec), pb.TrainingJobSpec()), display_name=display_name)
        made = self.training().CreateTrainingJob(training.CreateTrainingJobRequest(training_job=job), timeout=SECONDS)
        return Following(self, made.name)

    def training(self) -> training_stubs.TrainingServiceStub:
        """The calls for jobs."""
        return training_stubs.TrainingServiceStub(self.coordinator.channel)

    def _datasets(self) -> dataset_stubs.DatasetServiceStub:
        return dataset_stubs.DatasetServiceStub(self.coordinator.channel)


class Following:
    """A job, watched from its first event on; when the coordinator goes, from where the watch broke off."""

    def __init__(self, client: Client, name: str) -> None:
        self.name = name
        self.events: list[event_pb.TrainingEvent] = []
        self._client = client
        self._is_closed = False
        self._thread = threading.Thread(target=self._follow, name=name, daemon=True)
        self._thread.start()

    @property
    def id(self) -> str:
        """The last part of the name."""
        return self.name.removeprefix("jobs/")

    def job(self) -> pb.TrainingJob:
        """The job as it stands."""
        request = training.GetTrainingJobRequest(name=self.name)
        return self._client.training().GetTrainingJob(request, timeout=SECONDS, wait_for_ready=True)

    def pause(self) -> None:
        """Pauses it."""
        self._client.training().PauseTrainingJob(training.PauseTrainingJobRequest(name=self.name), timeout=SECONDS)

    def resume(self) -> None:
        """Resumes it."""
        self._client.training().ResumeTrainingJob(training.ResumeTrainingJobRequest(name=self.name), timeout=SECONDS)

    def of_kind(self, kind: str) -> list[Any]:
        """Its events of a kind so far."""
        return [getattr(event, kind) for event in list(self.events) if event.WhichOneof("kind") == kind]

    def epochs(self) -> list[Epoch]:
        """Its epochs so far."""
        return [Epoch(*(getattr(e, f) for f in Epoch.__dataclass_fields__)) for e in self.of_kind("epoch_completed")]

    def has_ended(self) -> bool:
        """Whether the watch has seen its end."""
        return not self._thread.is_alive()

    def reach(self, epoch: int) -> None:
        """Waits until an epoch is completed."""
        until(lambda: self.has_ended() or len(self.epochs()) >= epoch, f"{self.name} reaches epoch {epoch}")

    def reach_checkpoint(self) -> None:
        """Waits until there is a checkpoint."""
        until(lambda: self.has_ended() or self.of_kind("checkpoint_saved"), f"{self.name} saves a checkpoint")

    def end(self) -> pb.TrainingJob:
        """Waits for its end. Raises NotSurvived, also if what was watched differs from what is kept."""
        try:
            until(self.has_ended, f"{self.name} ends")
        except NotSurvived as error:
            raise NotSurvived(f"{error}; its story: {self.story()}") from None
        kept = list(self._events_after(0))
        numbers = [event.number for event in kept]
        check(numbers == list(range(1, len(kept) + 1)), f"the events have the numbers {numbers}")
        check(kept == self.events, "a client that watched has seen other events than there are")
        return self.job()

    def close(self) -> None:
        """Follows it no longer."""
        self._is_closed = True

    def story(self) -> str:
        """What happened, in short."""
        told = []
        for event in list(self.events):
            kind = event.WhichOneof("kind")
            if kind == "state_changed":
                change = event.state_changed
                told.append(" ".join(filter(None, [State.Name(change.state), change.reason, change.error.message])))
            elif kind not in ("epoch_completed", "checkpoint_saved"):
                told.append(str(kind))
        return " -> ".join([*told[-30:], f"{len(self.epochs())} epochs"])

    def _follow(self) -> None:
        while not self._is_closed:
            try:
                for event in self._events_after(len(self.events)):
                    self.events.append(event)
                return
            except (grpc.RpcError, ValueError):  # ValueError: its channel was closed meanwhile
                time.sleep(0.05)

    def _events_after(self, number: int) -> Iterator[event_pb.TrainingEvent]:
        request = training.WatchTrainingJobRequest(name=self.name, after_event=number)
        for answer in self._client.training().WatchTrainingJob(request):
            if answer.WhichOneof("update") == "event":
                yield answer.event


def check(holds: bool, otherwise: str) -> None:
    """Raises NotSurvived with a message unless something holds."""
    if not holds:
        raise NotSurvived(otherwise)


def measure(job: Following) -> Yardstick:
    """What an undisturbed job came to. Raises NotSurvived if it failed."""
    ended = job.end()
    check(ended.state == State.SUCCEEDED, f"the undisturbed job failed: {ended.error.message}; {job.story()}")
    check([epoch.epoch for epoch in job.epochs()] == list(range(1, ended.spec.epochs + 1)), "an epoch is missing")
    return Yardstick(ended.result.parameters_sha256, job.epochs())


def check_same(job: Following, yardstick: Yardstick) -> None:
    """Waits for a job's end, and raises NotSurvived unless it came to the same bits by the same epochs."""
    ended = job.end()
    if ended.state != State.SUCCEEDED:
        raise NotSurvived(f"{job.name} is {State.Name(ended.state)}: {ended.error.message}; {job.story()}")
    found, wanted = ended.result.parameters_sha256, yardstick.parameters_sha256
    check(found == wanted, f"the parameters are {found[:12]}, undisturbed {wanted[:12]}; {job.story()}")
    check(ended.progress.step == ended.progress.total_steps, f"took {ended.progress.step} steps")
    epochs = job.epochs()
    check([epoch.epoch for epoch in epochs] == list(range(1, len(epochs) + 1)), f"an epoch is missing: {job.story()}")
    for epoch, expected in zip(epochs, yardstick.epochs, strict=True):
        check(epoch == expected, f"{epoch} differs from the undisturbed {expected}")


def check_failed(job: Following, reason: str) -> str:
    """Waits for a job's end, and raises NotSurvived unless it failed for the reason. Returns the message."""
    ended = job.end()
    if ended.state != State.FAILED or ended.error.reason != reason:
        raise NotSurvived(f"{job.name} did not fail with {reason} but is {State.Name(ended.state)}; {job.story()}")
    return ended.error.message


def _upload(name: str, data: bytes) -> Iterator[datasets.UploadDatasetRequest]:
    header = datasets.UploadDatasetHeader(
        dataset_id=name,
        format=datasets.Dataset.NPZ,
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )
    yield datasets.UploadDatasetRequest(header=header)
    for offset in range(0, len(data), CHUNK_BYTES):
        chunk = datasets.DatasetChunk(offset=offset, data=data[offset : offset + CHUNK_BYTES])
        yield datasets.UploadDatasetRequest(chunk=chunk)
