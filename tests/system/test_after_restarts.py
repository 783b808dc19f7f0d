"""A job outlives its coordinator, however that ends."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from chainrule.samples import make_sample
from chainrule.v1.training_event_pb2 import TrainingEvent
from chainrule.v1.training_job_pb2 import TrainingJob
from tests.system.coordinator import LONG, Coordinator, digits, running, states, story

pytestmark = pytest.mark.system

OFTEN = ("--checkpoint-seconds", "0.2")


def watch_a_run(coordinator: Coordinator, name: str, run: int) -> Iterator[TrainingEvent]:
    """A job's events up to the first checkpoint after an epoch, since it was running for the nth time."""
    runs = epochs = 0
    for update in coordinator.client.watch(name):
        if isinstance(update, TrainingEvent):
            yield update
            runs += update.state_changed.state == TrainingJob.RUNNING
            epochs += runs == run and update.HasField("epoch_completed")
            if epochs and update.HasField("checkpoint_saved"):
                return


def last_checkpoint(events: list[TrainingEvent]) -> int:
    return max(event.checkpoint_saved.step for event in events)


def steps_taken(coordinator: Coordinator) -> float | None:
    """How many steps this very process has taken."""
    return coordinator.sample("chainrule_step_phase_seconds_count", phase="gather")


def test_a_job_goes_on_after_its_coordinator_was_stopped_and_after_it_was_killed(
    tmp_path: Path, quiet: TrainingJob, until_the_end: ExitStack
) -> None:
    with running(tmp_path / "data", *OFTEN) as coordinator:
        coordinator.client.upload_dataset(make_sample("digits"), "digits")
        job = coordinator.client.create_job(digits(epochs=LONG))
        first = list(watch_a_run(coordinator, job.name, 1))
        coordinator.program.send(signal.SIGTERM)
        assert coordinator.program.result() == 0

    # It takes Ray's processes a minute to end by themselves, after trying to tell of it. So they are looked for later.
    coordinator = until_the_end.enter_context(running(tmp_path / "data", *OFTEN))
    second = list(watch_a_run(coordinator, job.name, 2))
    coordinator.program.send(signal.SIGKILL)
    assert coordinator.program.result() == -signal.SIGKILL

    with running(tmp_path / "data", *OFTEN) as coordinator:
        events = story(coordinator.client, job.name)
        ended = coordinator.client.get_job(job.name)
        # It went on from a checkpoint, this one or a later one that nobody was told of any more.
        assert 0 < (steps_taken(coordinator) or 0) <= quiet.progress.total_steps - last_checkpoint(second)

    assert ended.result.parameters_sha256 == quiet.result.parameters_sha256
    assert events[: len(second)] == second
    assert second[: len(first)] == first
    round_trip = ["STARTING", "RUNNING", "QUEUED"]
    assert states(events) == ["QUEUED", *round_trip, *round_trip, "STARTING", "RUNNING", "SUCCEEDED"]
    stopped, killed = (event.number for event in events[1:] if event.state_changed.state == TrainingJob.QUEUED)
    assert events[stopped - 1].state_changed.reason == "goes on when the coordinator, which was stopped, starts again"
    assert events[killed - 1].state_changed.reason == "goes on after a restart of the coordinator"
    # Stopped, it first wrote a checkpoint of its last step.
    assert last_checkpoint(events[:stopped]) == events[stopped - 2].checkpoint_saved.step
    # What was done twice is told once.
    epochs = [event.epoch_completed.epoch for event in events if event.HasField("epoch_completed")]
    assert epochs == list(range(1, LONG + 1))
    checkpoints = [event.checkpoint_saved.step for event in events if event.HasField("checkpoint_saved")]
    assert checkpoints == sorted(set(checkpoints))
