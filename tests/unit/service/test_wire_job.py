"""Jobs, their events and their progress, as clients see them."""

from dataclasses import replace
from datetime import UTC

import pytest
from google.protobuf import json_format

from chainrule.v1 import training_job_pb2 as pb
from service.jobs.events import Progress, Running, Starting, State, StateChanged, WorkerLost
from service.jobs.job import advance
from service.jobs.store import Record
from service.wire.job import event_message, job_message, progress_message
from service.wire.spec import spec_message
from tests.unit.service.examples import NOON, SPEC, job
from tests.unit.service.stories import CHANGES, EPOCH, FAILED, HAPPENINGS, ROLLED_BACK, SUCCEEDED, job_in


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
            "validationScores": {"accuracy": 0.8, "f1": 0.75},
            "confusion": [{"counts": [3.0, 0.0]}, {"counts": [1.0, 2.5]}],
        }


EVENTS: list[tuple[str, dict[str, object]]] = [
    (
        "epochCompleted",
        {
            "epoch": 1,
            "step": "4",
            "trainingLoss": 0.5,
            "trainingAccuracy": 0.7,
            "validationLoss": 0.6,
            "learningRate": 0.01,
            "durationSeconds": 1.5,
            "trainingScores": {"accuracy": 0.7},
            "validationScores": {"f1": 0.625},
        },
    ),
    ("checkpointSaved", {"step": "3"}),
    ("workerLost", {"worker": 1, "step": "2", "reason": "its process ended"}),
    ("workerJoined", {"worker": 1, "step": "3", "exchange": "shared_memory"}),
    ("rolledBack", {"divergedStep": "6", "step": "4", "learningRate": 0.005, "reason": "the loss is NaN"}),
    (
        "healthSampled",
        {
            "step": "4",
            "gradientNorm": 0.5,
            "layers": [
                {
                    "layer": "layers.0",
                    "kind": "dense",
                    "outputMean": 0.25,
                    "outputDeviation": 1.5,
                    "gradientNorm": 0.5,
                    "parameterNorm": 2.0,
                    "updateRatio": 0.001,
                },
                {"layer": "a", "kind": "relu", "outputMean": 0.5, "outputDeviation": 1.0, "deadRatio": 0.25},
            ],
            "stragglerRatio": 1.25,
        },
    ),
    (
        "diagnosed",
        {"diagnosis": {"trouble": "OVERFITTING", "step": "4", "evidence": "it rose", "advice": "stop early"}},
    ),
    (
        "diagnosed",
        {
            "diagnosis": {
                "trouble": "DEAD_UNITS",
                "step": "4",
                "layer": "a",
                "evidence": "half are 0",
                "advice": "a smaller rate",
            }
        },
    ),
    ("recovered", {"trouble": "OVERFITTING", "step": "8"}),
]


def test_other_events() -> None:
    sent = [event_message("job-a", Record(number, NOON, event)) for number, event in enumerate(HAPPENINGS, start=2)]
    for (kind, fields), message in zip(EVENTS, sent, strict=True):
        shown = json_format.MessageToDict(message)
        assert shown[kind] == fields
        assert set(shown) == {"number", "time", kind}


def test_a_job() -> None:
    made = job(StateChanged(Starting()), StateChanged(Running()), EPOCH, WorkerLost(0, 5, "gone"))
    progress = progress_message(made, Progress(6, 0.45, 123.0, 2, learning_rate=0.025, phase_seconds={"forward": 0.25}))
    shown = json_format.MessageToDict(job_message(made, progress, ""), preserving_proto_field_name=True)
    assert shown.pop("spec") == json_format.MessageToDict(spec_message(SPEC), preserving_proto_field_name=True)
    assert shown == {
        "etag": "r3",
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
            "learning_rate": 0.025,
            "samples_per_second": 123.0,
            "workers": 2,
            "worker_failures": "1",
            "validation_scores": {"f1": 0.625},
            "phase_seconds": {"forward": 0.25},
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


def test_the_learning_rate_is_the_newest_that_is_known() -> None:
    made = job(StateChanged(Starting()), StateChanged(Running()))
    assert progress_message(made, Progress()).learning_rate == SPEC.learning_rate
    made = advance(made, EPOCH, NOON)
    assert progress_message(made, Progress()).learning_rate == EPOCH.learning_rate
    made = advance(made, replace(ROLLED_BACK, learning_rate=0.0125), NOON)
    assert progress_message(made, Progress()).learning_rate == 0.0125
    made = advance(made, replace(EPOCH, epoch=2, step=8, learning_rate=0.0075, best_epoch=1), NOON)
    sent = progress_message(made, Progress())
    assert (sent.learning_rate, sent.best_epoch) == (0.0075, 1)
    assert progress_message(made, Progress(9, learning_rate=0.003)).learning_rate == 0.003


def test_a_job_that_stopped_early_took_all_its_steps() -> None:
    reason = "stopped early at epoch 1: best validation loss 0.6 at epoch 1"
    ended = replace(SUCCEEDED, epoch=1, reason=reason)
    made = job(StateChanged(Starting()), StateChanged(Running()), EPOCH, StateChanged(ended))
    sent = job_message(made, progress_message(made, Progress()), "")
    assert (sent.state_reason, sent.result.epoch) == (reason, 1)
    assert (sent.progress.step, sent.progress.total_steps) == (4, 4)


def test_who_has_no_workers_shows_none() -> None:
    """What was known of its last step does not hold while it waits, or after its end."""
    for state in ("WAITING_FOR_WORKERS", "SUCCEEDED", "STARTING"):
        sent = progress_message(job_in(state), Progress(6, 0.45, 123.0, 2))
        assert (sent.step, sent.workers, sent.samples_per_second) == (6, 0, 0.0)


def test_why_a_job_waits() -> None:
    queued = replace(job(), state=CHANGES[0])
    assert job_message(queued, pb.TrainingProgress(), "").state_reason == "once more"
    assert job_message(queued, pb.TrainingProgress(), "waits for 2 workers").state_reason == "waits for 2 workers"
