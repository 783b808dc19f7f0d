"""A job that a client sends its mini-batches, with real workers: whatever dies, it goes on, and the bits stay."""

import os
import signal
import socket
from pathlib import Path

import numpy as np
import pytest
from google.protobuf.json_format import ParseDict

from chainrule import Client
from chainrule.online import OnlineSession
from chainrule.v1.training_job_pb2 import TrainingJob, TrainingJobSpec
from tests.system.coordinator import Coordinator, running, story

pytestmark = pytest.mark.system

STEPS = 120
RNG = np.random.default_rng(3)
X = RNG.standard_normal((STEPS, 64, 16)).astype(np.float32)
Y = X.sum(axis=2)

SPEC = ParseDict(
    {
        "data": {"online": {"input_shape": [16], "steps_per_epoch": 20}},
        "network": {"layers": [{"dense": {"units": 32}}, {"tanh": {}}, {"dense": {"units": 1}}]},
        "loss": {"mean_squared_error": {}},
    },
    TrainingJobSpec(),
)


def train(session: OnlineSession, first: int, last: int) -> list[float]:
    """The losses of some steps, from 1; eight batches are sent ahead."""
    batches = ({"x": X[step - 1], "y": Y[step - 1]} for step in range(first, last + 1))
    return [answer.loss for answer in session.steps(batches)]


@pytest.fixture(scope="module")
def undisturbed(coordinator: Coordinator) -> tuple[TrainingJob, list[float]]:
    """The job as it ends if nothing happens, and the loss of every step."""
    with coordinator.client.train_online(SPEC) as session:
        losses = train(session, 1, STEPS)
        return session.finish(), losses


def test_the_deaths_of_a_worker_and_of_the_trainer_change_no_bit(
    client: Client, coordinator: Coordinator, undisturbed: tuple[TrainingJob, list[float]]
) -> None:
    expected, losses = undisturbed
    assert losses[-1] < losses[0] / 2
    with client.train_online(SPEC) as session:
        again = train(session, 1, 30)
        os.kill(coordinator.serving()[0], signal.SIGKILL)
        again += train(session, 31, 60)
        for trainer in coordinator.program.named("ray::TrainerActor"):  # and the one that is ready for the next job
            os.kill(trainer, signal.SIGKILL)
        again += train(session, 61, STEPS)
        ended = session.finish()
    assert again == losses
    assert ended.result.parameters_sha256 == expected.result.parameters_sha256
    assert any(event.HasField("worker_lost") for event in story(client, ended.name))


def test_the_death_of_the_coordinator_changes_no_bit(
    tmp_path: Path, undisturbed: tuple[TrainingJob, list[float]]
) -> None:
    """And of all its processes, as when the power fails: the client waits for the next one at the same address."""
    expected, losses = undisturbed
    with socket.create_server(("127.0.0.1", 0)) as free:
        options = ("--local-workers", "2", "--listen", f"127.0.0.1:{free.getsockname()[1]}")
    with (
        running(tmp_path / "data", *options) as coordinator,
        Client(coordinator.grpc) as client,
        client.train_online(SPEC) as session,
    ):
        again = train(session, 1, 55)  # of which a checkpoint has 40
        coordinator.program.kill_all()
        with running(tmp_path / "data", *options):
            again += train(session, 56, STEPS)
            ended = session.finish()
    assert again == losses
    assert ended.result.parameters_sha256 == expected.result.parameters_sha256
