"""Jobs, their events and their progress, as clients see them."""

from dataclasses import replace
from datetime import UTC

import pytest
from google.protobuf import json_format

from chainrule.v1 import training_job_pb2 as pb
from service.jobs.job import Progress, Running, Starting, State, StateChanged, WorkerLost
from service.jobs.store import Record
from service.wire.job import event_message, job_message, progress_message
from service.wire.spec import spec_message
from tests.unit.service.examples import NOON, SPEC, job
from tests.unit.service.stories import CHANGES, EPOCH, FAILED, HAPPENINGS, SUCCEEDED, job_in


@pytest.mark.parametrize("state", CHANGES, ids=lambda state: state.kind)
def test_a_change_of_state(state: State) -> None:
    sent = event_message("job-a", Record(7, NOON, StateChanged(state)))
    assert (sent.number, sent.time.ToDatetime(UTC), sent.WhichOneof("kind")) == (7, NOON, "state_changed")
    change = sent.state_changed
    assert pb.TrainingJob.State.Name(change.state) == state.kind
    assert change.reason == (getattr(state, "reason", "") if state.kind in ("QUEUED", "WAITING_FOR_WORKERS") else "")
    assert (change.HasField("error"), change.HasField("result")) == (state is FAILED, state is SUCCEEDED)
    if state is FAILED:
        assert (change.error.reason, change.error.message) == ("INTERNAL", "it broke")
    if state is SUCCEEDED:
        assert json_format.MessageToDict(change.result) == {
            "model": "models/job-a",
            "parametersSha256": "ab" * 32,
            "trainingLoss": 0.1,
            "trainingAccuracy": 0.9,
            "validationLoss": 0.2,
            "validationAccuracy": 0.8,
            "durationSeconds": 12.5,
        }


EVENTS = {
    "epochCompleted": {
        "epoch": 1,
        "step": "4",
        "trainingLoss": 0.5,
        "trainingAccuracy": 0.7,
        "validationLoss": 0.6,
        "learningRate": 0.01,
        "durationSeconds": 1.5,
    },
    "checkpointSaved": {"step": "3"},
    "workerLost": {"worker": 1, "step": "2", "reason": "its process ended"},
    "workerJoined": {"worker": 1, "step": "3", "exchange": "shared_memory"},
    "rolledBack": {"divergedStep": "6", "step": "4", "learningRate": 0.005, "reason": "the loss is NaN"},
}


def test_other_events() -> None:
    sent = [event_message("job-a", Record(number, NOON, event)) for number, event in enumerate(HAPPENINGS, start=2)]
    for (kind, fields), message in zip(EVENTS.items(), sent, strict=True):
        shown = json_format.MessageToDict(message)
        assert shown[kind] == fields
        assert set(shown) == {"number", "time", kind}


def test_a_job() -> None:
    made = job(StateChanged(Starting()), StateChanged(Running()), EPOCH, WorkerLost(0, 5, "gone"))
    progress = progress_message(made, Progress(6, 0.45, 123.0, 2))
    shown = json_format.MessageToDict(job_message(made, progress, ""), preserving_proto_field_name=True)
    assert shown.pop("spec") == json_format.MessageToDict(spec_message(SPEC), preserving_proto_field_name=True)
    assert shown == {
        "name": "jobs/job-a",
        "display_name": "a job",
        "state": "RUNNING",
        "progress": {
            "epoch": 1,
            "step": "6",
            "total_steps": "12",
            "samples": str(24 + 14),
            "training_loss": 0.45,
            "validation_loss": 0.6,
            "learning_rate": 0.05,
            "samples_per_second": 123.0,
            "workers": 2,
            "worker_failures": "1",
        },
        "create_time": "2026-01-01T12:00:00Z",
        "start_time": "2026-01-01T12:00:00Z",
        "last_event": "5",
    }


def test_progress_after_a_restart_is_that_of_the_events() -> None:
    made = job(StateChanged(Starting()), StateChanged(Running()), EPOCH)
    sent = progress_message(made, Progress())
    assert (sent.step, sent.samples, sent.training_loss, sent.workers) == (4, 24, 0.5, 0)
    assert not sent.HasField("validation_accuracy")


def test_who_has_no_workers_shows_none() -> None:
    """What was known of its last step does not hold while it waits, or after its end."""
    for state in ("WAITING_FOR_WORKERS", "SUCCEEDED", "STARTING"):
        sent = progress_message(job_in(state), Progress(6, 0.45, 123.0, 2))
        assert (sent.step, sent.workers, sent.samples_per_second) == (6, 0, 0.0)


def test_why_a_job_waits() -> None:
    queued = replace(job(), state=CHANGES[0])
    assert job_message(queued, pb.TrainingProgress(), "").state_reason == "once more"
    assert job_message(queued, pb.TrainingProgress(), "waits for 2 workers").state_reason == "waits for 2 workers"
