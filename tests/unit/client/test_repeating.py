"""Calls that a coordinator about to stop refuses: made again until the next one is there, if that does no harm."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
import pytest

from chainrule import Client, DeadlineExceeded, Unavailable
from chainrule.v1 import model_service_pb2 as model_messages
from chainrule.v1 import training_service_pb2 as training_messages
from chainrule.v1.model_service_pb2 import Model
from chainrule.v1.training_job_pb2 import TrainingJob, TrainingJobSpec
from tests.unit.client.fakes import FakeModels, FakeService, FakeTraining, serving
from tests.unit.client.refusing import refuse

DOWN_SECONDS = 1.0
"""How long nobody is at the address: longer than gRPC itself tries again."""


@dataclass
class Stopping:
    """Tells of every call that it is refused, as one does that drains."""

    refused: int = 0

    def refuse(self, context: grpc.ServicerContext) -> None:
        self.refused += 1
        refuse(context, grpc.StatusCode.UNAVAILABLE, "the coordinator is stopping", "COORDINATOR_STOPPING", {})


@dataclass
class StoppingTraining(Stopping, FakeTraining):
    def CreateTrainingJob(  # noqa: N802 - gRPC's name
        self, request: training_messages.CreateTrainingJobRequest, context: grpc.ServicerContext
    ) -> TrainingJob:
        self.created.append(request)
        self.refuse(context)
        return TrainingJob()

    def PauseTrainingJob(  # noqa: N802
        self,
        request: training_messages.PauseTrainingJobRequest,  # noqa: ARG002
        context: grpc.ServicerContext,
    ) -> TrainingJob:
        self.refuse(context)
        return TrainingJob()


@dataclass
class StoppingModels(Stopping, FakeModels):
    def SetModelAlias(  # noqa: N802
        self,
        request: model_messages.SetModelAliasRequest,  # noqa: ARG002
        context: grpc.ServicerContext,
    ) -> Model:
        self.refuse(context)
        return Model()


@contextmanager
def replaced(stopping: FakeService, following: FakeService, until: Callable[[], object]) -> Iterator[str]:
    """The address of a service that is gone after it has refused a call, and after a while of one in its place."""
    done = threading.Event()

    def follow() -> None:
        with serving(stopping) as first:
            address.append(first.address)
            ready.set()
            while not until() and not done.wait(0.01):
                pass
        if not done.wait(DOWN_SECONDS):
            with serving(following, address[0]):
                done.wait(30)

    address: list[str] = []
    ready = threading.Event()
    thread = threading.Thread(target=follow)
    thread.start()
    try:
        assert ready.wait(10)
        yield address[0]
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.create_job(TrainingJobSpec(epochs=3)).name == "jobs/j1",
        lambda client: client.set_model_alias("production", "m1").aliases == ["production"],
    ],
    ids=["create_job", "set_model_alias"],
)
def test_what_may_be_repeated_is_done_by_the_next_one(call: Callable[[Client], bool]) -> None:
    training, models, following = StoppingTraining(), StoppingModels(), FakeService()
    stopping = FakeService(training, models=models)
    with replaced(stopping, following, lambda: training.refused + models.refused) as address, Client(address) as client:
        client.get_model("m1")
        assert call(client)


def test_a_job_is_asked_for_by_the_same_request_id() -> None:
    training, following = StoppingTraining(), FakeService()
    with replaced(FakeService(training), following, lambda: training.refused > 3) as address, Client(address) as client:
        client.create_job(TrainingJobSpec(epochs=3))
    asked = [*training.created, *following.training.created]
    assert len(asked) >= 3
    assert len({request.request_id for request in asked}) == 1


def test_it_ends_within_the_call_s_deadline() -> None:
    training = StoppingTraining()
    with serving(FakeService(training)) as service, Client(service.address, timeout=1.5) as client:
        begun = time.monotonic()
        with pytest.raises((Unavailable, DeadlineExceeded)):  # by where in an attempt the time is up
            client.create_job(TrainingJobSpec())
        assert 0.5 < time.monotonic() - begun < 2.5
    assert training.refused > 1


def test_what_does_more_when_it_is_repeated_is_not() -> None:
    training = StoppingTraining()
    with serving(FakeService(training)) as service, Client(service.address) as client, pytest.raises(Unavailable):
        client.pause_job("j1")
    assert training.refused == 1
