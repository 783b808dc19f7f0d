"""A client of TrainOnline as the contract has it, and nothing more: messages that a test sends, and what comes back."""

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from google.protobuf import json_format

from chainrule.v1 import online_pb2 as pb
from chainrule.v1 import training_job_pb2 as job_pb
from chainrule.v1.training_service_pb2 import CreateTrainingJobRequest
from tests.api.running import SECONDS, Service, X, Y

BATCH, STEPS = 8, 4
"""Rows of a mini-batch; mini-batches of an epoch."""

ONLINE: dict[str, Any] = {
    "data": {"online": {"input_shape": [4], "steps_per_epoch": STEPS}},
    "network": {"layers": [{"dense": {"units": 4}}, {"relu": {}}, {"dropout": {"rate": 0.2}}, {"dense": {"units": 3}}]},
    "loss": {"softmax_cross_entropy": {}},
    "optimizer": {"learning_rate": 0.05, "adam": {}},
    "batch_size": BATCH,
    "shards": 3,
}


def create(service: Service, **changes: Any) -> job_pb.TrainingJob:
    """A job that waits for batches; fields of the specification are replaced."""
    spec = json_format.ParseDict({**ONLINE, **changes}, job_pb.TrainingJobSpec())
    job = job_pb.TrainingJob(spec=spec)
    return service.training.CreateTrainingJob(CreateTrainingJobRequest(training_job=job), timeout=SECONDS)


def start(name: str, **fields: Any) -> pb.TrainOnlineRequest:
    return pb.TrainOnlineRequest(start=pb.OnlineStart(name=name, **fields))


FINISH = pb.TrainOnlineRequest(finish=pb.OnlineFinish())


def tensor(name: str, datatype: str, array: Any, **changes: Any) -> pb.OnlineTensor:
    fields = {"shape": array.shape, "data": array.tobytes(), **changes}
    return pb.OnlineTensor(name=name, datatype=datatype, **fields)


def batch(step: int, rows: Any = None, tensors: Any = None) -> pb.TrainOnlineRequest:
    """The rows of a step: some of the flowers, by default others in each."""
    rows = np.arange(BATCH * (step - 1), BATCH * step) % len(X) if rows is None else rows
    if tensors is None:
        tensors = [tensor("x", "FP32", X[rows]), tensor("y", "INT64", Y[rows])]
    return pb.TrainOnlineRequest(batch=pb.OnlineBatch(step=step, tensors=tensors))


class Stream:
    """An open stream."""

    def __init__(self, service: Service, name: str, **fields: Any) -> None:
        self._sent: queue.SimpleQueue[pb.TrainOnlineRequest | None] = queue.SimpleQueue()
        self._sent.put(start(name, **fields))
        self._call: Any = service.training.TrainOnline(iter(self._sent.get, None), timeout=SECONDS)

    def started(self) -> pb.OnlineStarted:
        response = self._next()
        assert response.HasField("started"), response
        return response.started

    def send(self, *messages: pb.TrainOnlineRequest) -> None:
        for message in messages:
            self._sent.put(message)

    def answer(self) -> pb.OnlineStep:
        response = self._next()
        assert response.HasField("step"), response
        return response.step

    def answers(self, count: int) -> list[pb.OnlineStep]:
        return [self.answer() for _ in range(count)]

    def finished(self) -> job_pb.TrainingJob:
        self.send(FINISH)
        response = self._next()
        assert response.HasField("finished"), response
        assert list(self._call) == []
        return response.finished

    def _next(self) -> pb.TrainOnlineResponse:
        response: pb.TrainOnlineResponse = next(self._call)
        return response

    def end(self) -> None:
        """Closes the client's side, and takes what there is to the end of the other's."""
        self._sent.put(None)
        list(self._call)

    def break_off(self) -> None:
        """As a client that is lost does."""
        self._call.cancel()
        self._sent.put(None)


@contextmanager
def stream(service: Service, name: str, **fields: Any) -> Iterator[Stream]:
    """A stream that is broken off at the latest when the context is left."""
    made = Stream(service, name, **fields)
    try:
        yield made
    finally:
        made.break_off()


def trained(service: Service, job: job_pb.TrainingJob, steps: int) -> tuple[job_pb.TrainingJob, list[pb.OnlineStep]]:
    """Trains a job to its end, without a break. Gives the ended job, and every answer."""
    with stream(service, job.name) as sending:
        assert sending.started().step == 0
        answers = []
        for step in range(1, steps + 1):
            sending.send(batch(step))
            answers.append(sending.answer())
        return sending.finished(), answers


def without_durable(answers: list[pb.OnlineStep]) -> list[tuple[int, float, float]]:
    """What of answers must be the same whatever happened."""
    return [(each.step, each.loss, each.gradient_norm) for each in answers]
