"""Chainrule as a contender: the whole product, a coordinator process spoken to through gRPC."""

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from google.protobuf import json_format

from benchmarks.cases import Case
from benchmarks.tasks import synthetic
from chainrule.client import Client
from chainrule.coordinator import Coordinator, embedded
from chainrule.v1.convolution_pb2 import SAME, Conv2d, Flatten, Pool2d, Reshape
from chainrule.v1.losses_pb2 import SoftmaxCrossEntropy
from chainrule.v1.network_pb2 import Dense, Layer, Loss, Network, Relu
from chainrule.v1.training_data_pb2 import TrainingData
from chainrule.v1.training_job_pb2 import Adam, Optimizer, Sgd, TrainingJob, TrainingJobSpec, TrainingProgress
from worker.arrays import Array

FOREVER = 1_000_000
"""Epochs of a job that is cancelled once it was measured."""


@dataclass
class Service:
    """A running coordinator."""

    coordinator: Coordinator
    client: Client
    _uploaded: set[str] = field(default_factory=set)

    def create(self, case: Case, workers: int = 2, shards: int = 2, epochs: int = FOREVER) -> TrainingJob:
        """Creates a job for a case, its dataset uploaded before if it wasn't yet."""
        dataset = f"rows-{case.rows}-{case.units[0]}-{case.units[-1]}"
        if dataset not in self._uploaded:
            self.upload(dataset, *synthetic(case))
        return self.client.create_job(spec(case, dataset, workers, shards, epochs))

    def upload(self, dataset: str, x: Array, y: Array) -> None:
        """Makes a dataset of columns x and y."""
        with io.BytesIO() as file:
            np.savez(file, x=x, y=y)
            self.client.upload_dataset(file.getvalue(), dataset)
        self._uploaded.add(dataset)

    def end(self, job: TrainingJob) -> None:
        """Cancels a job and waits until its workers are free."""
        self.client.cancel_job(job.name)
        self.client.wait(job.name)
        time.sleep(0.5)


@contextmanager
def service(workers: int = 4) -> Iterator[Service]:
    """Starts a coordinator with room for some workers, and stops it at the end."""
    with (
        TemporaryDirectory(prefix="chainrule-bench-") as directory,
        embedded(Path(directory), workers=workers) as coordinator,
        Client(coordinator.address) as client,
    ):
        yield Service(coordinator, client)


@dataclass(frozen=True)
class Ours:
    """Trains a case on a running service."""

    service: Service
    case: Case
    workers: int = 2

    def rate(self, seconds: float) -> float:
        """From the samples that a watching client is told of, once the first epoch is over."""
        job = self.service.create(self.case, self.workers)
        marks: list[tuple[float, int]] = []
        for samples in progress(self.service, job):
            if samples >= self.case.rows:
                marks.append((time.monotonic(), samples))
                if marks[-1][0] - marks[0][0] >= seconds:
                    break
        self.service.end(job)
        (began, before), (ended, after) = marks[0], marks[-1]
        return (after - before) / (ended - began)


def progress(service: Service, job: TrainingJob) -> Iterator[int]:
    """How many samples the job has trained on, several times a second. Raises RuntimeError if it ends."""
    for update in service.client.watch(job.name):
        if isinstance(update, TrainingProgress):
            yield update.samples
    raise RuntimeError(f"{job.name} ended: {service.client.get_job(job.name)}")


def spec(case: Case, dataset: str, workers: int, shards: int, epochs: int) -> TrainingJobSpec:
    """The job of a case. Nothing is held out, since the others hold nothing out."""
    optimizer = Optimizer(learning_rate=case.learning_rate)
    if case.optimizer == "sgd":
        optimizer.sgd.CopyFrom(Sgd())
    else:
        optimizer.adam.CopyFrom(Adam())
    return TrainingJobSpec(
        data=TrainingData(dataset=f"datasets/{dataset}", validation_fraction=0.0),
        network=network(case),
        loss=Loss(softmax_cross_entropy=SoftmaxCrossEntropy()),
        optimizer=optimizer,
        epochs=epochs,
        batch_size=case.batch,
        shards=shards,
        workers=workers,
    )


def network(case: Case) -> Network:
    """Dense layers, perhaps behind convolutions; or an embedding, an LSTM whose last state counts, and a dense one."""
    if case.length:
        words, size, units, classes = case.units
        kinds = [
            {"embedding": {"vocabulary": words, "size": size}},
            {"lstm": {"units": units}},
            {"dense": {"units": classes}},
        ]
        return json_format.ParseDict({"layers": kinds}, Network())
    layers = [Layer(reshape=Reshape(shape=[case.side, case.side, 1]))] if case.filters else []
    for filters in case.filters:
        layers += [Layer(conv2d=Conv2d(filters=filters, kernel_size=[3], padding=SAME)), Layer(relu=Relu())]
        layers += [Layer(pool2d=Pool2d())]
    layers += [Layer(flatten=Flatten())] if case.filters else []
    for units in case.units[1:]:
        layers += [Layer(dense=Dense(units=units)), Layer(relu=Relu())]
    return Network(layers=layers[:-1])
