"""The live view and what feeds it."""

import io

from rich.console import Console

from chainrule.cli.live import LiveView, draw
from chainrule.cli.result import summary
from chainrule.cli.story import seconds_left, take
from chainrule.v1.training_event_pb2 import StateChanged, TrainingEvent
from chainrule.v1.training_job_pb2 import TrainingJob, TrainingJobSpec, TrainingProgress, TrainingResult
from tests.unit.client.fakes import SHA256, story

FOOTER = "Ctrl-C cancels the job"


def drawn(job: TrainingJob, silence: float = 0.0) -> str:
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as capture:
        console.print(draw(job, FOOTER, silence))
    return capture.get()


def running() -> TrainingJob:
    job = TrainingJob(name="jobs/j1", state=TrainingJob.RUNNING, spec=TrainingJobSpec(epochs=30))
    job.progress.MergeFrom(
        TrainingProgress(epoch=12, step=1200, total_steps=3000, samples=76_800, training_loss=0.03125, workers=2)
    )
    job.progress.samples_per_second = 12_800
    job.progress.validation_accuracy = 0.972
    return job


def test_all_that_matters_is_on_the_screen() -> None:
    job = running()
    view = drawn(job)
    for part in ("jobs/j1  RUNNING", "step 1,200/3,000  9.0 s left", "epoch 12/30", "loss 0.03125", "97.2 %"):
        assert part in view
    for part in ("samples/s 12,800", "workers 2", FOOTER):
        assert part in view
    assert "workers lost" not in view
    job.display_name, job.state_reason, job.progress.worker_failures = "Digits", "resumed", 1
    assert "Digits  RUNNING  resumed" in drawn(job)
    assert "workers lost 1" in drawn(job)
    assert max(map(len, view.splitlines())) <= 80


def test_silence_is_shown_while_something_should_be_heard() -> None:
    job = running()
    assert "no news" not in drawn(job, 4.0)
    assert "no news for 12 s" in drawn(job, 12.0)
    job.state = TrainingJob.QUEUED
    assert "no news" not in drawn(job, 12.0)
    job.state = TrainingJob.SUCCEEDED
    assert FOOTER not in drawn(job)


def test_a_job_that_has_not_begun_can_be_drawn() -> None:
    assert "step 0/0" in drawn(TrainingJob(name="jobs/j1", state=TrainingJob.QUEUED))
    assert seconds_left(TrainingProgress()) is None


def test_the_story_of_a_job_adds_up() -> None:
    job = TrainingJob()
    for event in story():
        take(job, event)
    assert (job.state, job.last_event) == (TrainingJob.SUCCEEDED, 5)
    assert job.result.parameters_sha256 == SHA256
    assert (job.progress.epoch, job.progress.step, job.progress.validation_accuracy) == (2, 20, 0.97)
    take(job, TrainingProgress(step=7))
    assert job.progress == TrainingProgress(step=7)


def test_a_job_that_stopped_early_took_all_the_steps_it_was_to_take() -> None:
    job = TrainingJob(progress=TrainingProgress(step=8, total_steps=20, samples_per_second=1.0, samples=80))
    change = StateChanged(state=TrainingJob.SUCCEEDED, reason="stopped early", result=TrainingResult(epoch=1))
    take(job, TrainingEvent(number=6, state_changed=change))
    assert (job.progress.total_steps, seconds_left(job.progress)) == (8, 0)
    assert "stopped early" in summary(job)


def test_the_view_draws_itself_on_a_terminal() -> None:
    out = io.StringIO()
    with LiveView(Console(file=out, force_terminal=True, width=80), FOOTER) as view:
        view.show(running(), None)
    assert "epoch" in out.getvalue()
    assert FOOTER in out.getvalue()
