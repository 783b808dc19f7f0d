"""The promise: the same bits, however many workers there are and whatever happens to them."""

import os
import signal

import pytest

from chainrule import Client
from chainrule.v1.training_job_pb2 import TrainingJob
from tests.system.coordinator import EPOCHS, LONG, STEPS, Coordinator, digits, states, story
from tests.system.processes import until

pytestmark = pytest.mark.system


def test_a_job_learns_and_says_how(client: Client, undisturbed: TrainingJob) -> None:
    job = undisturbed
    assert job.state == TrainingJob.SUCCEEDED
    assert job.result.validation_accuracy >= 0.95
    assert job.result.training_loss < 0.1
    assert (job.progress.step, job.progress.total_steps) == (STEPS, STEPS)
    assert client.get_model(job.result.model).parameters_sha256 == job.result.parameters_sha256
    events = story(client, job.name)
    assert states(events) == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]
    epochs = [event.epoch_completed for event in events if event.HasField("epoch_completed")]
    assert [epoch.epoch for epoch in epochs] == list(range(1, EPOCHS + 1))
    assert epochs[-1].training_loss < epochs[0].training_loss / 10


def test_any_number_of_workers_gives_the_same_bits(client: Client, undisturbed: TrainingJob) -> None:
    jobs = [client.create_job(digits(workers=workers)) for workers in (1, 3)]
    ended = [client.wait(job.name).result.parameters_sha256 for job in jobs]
    assert ended == [undisturbed.result.parameters_sha256] * 2


@pytest.mark.parametrize("count", [1, 2])
def test_killed_workers_change_no_bit(coordinator: Coordinator, client: Client, quiet: TrainingJob, count: int) -> None:
    job = client.create_job(digits(workers=2, epochs=LONG))
    # In the middle of the job, and of a step if anywhere.
    until(lambda: client.get_job(job.name).progress.workers == 2 and len(coordinator.serving()) == 2)
    for process in coordinator.serving()[:count]:
        os.kill(process, signal.SIGKILL)
    job = client.wait(job.name)
    assert job.result.parameters_sha256 == quiet.result.parameters_sha256
    events = story(client, job.name)
    lost = [event.worker_lost.worker for event in events if event.HasField("worker_lost")]
    assert len(set(lost)) == len(lost) == job.progress.worker_failures == count
    waited = ["WAITING_FOR_WORKERS", "RUNNING"] if count == 2 else []
    assert states(events) == ["QUEUED", "STARTING", "RUNNING", *waited, "SUCCEEDED"]
