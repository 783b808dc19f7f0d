"""The live view and what feeds it."""

import io

import pytest
from rich.console import Console

from chainrule.cli.live import LiveView, StoryView
from chainrule.cli.result import summary
from chainrule.cli.story import Story, seconds_left
from chainrule.v1.training_event_pb2 import StateChanged, TrainingEvent
from chainrule.v1.training_health_pb2 import Diagnosed
from chainrule.v1.training_job_pb2 import TrainingJob, TrainingJobSpec, TrainingProgress, TrainingResult
from tests.unit.client.fakes import SHA256, story
from tests.unit.client.histories import OVERFITTING, VANISHING, eventful, look

FOOTER = "Ctrl-C cancels the job"


PHASES = {"forward": 0.001, "backward": 0.0025, "wait": 0.0005, "split": 0.0}


def drawn(job: TrainingJob | Story, silence: float = 0.0, width: int = 80, height: int = 24) -> str:
    console = Console(file=io.StringIO(), width=width, height=height)
    shown = job if isinstance(job, Story) else Story(job)
    with console.capture() as capture:
        console.print(StoryView(shown, FOOTER, silence))
    return capture.get()


def eventful_story(layers: int = 3) -> Story:
    """One with everything that can be drawn."""
    told = Story(running())
    for event in eventful().events[:-1]:
        told.take(event)
    told.take(TrainingEvent(number=30, health_sampled=look(120, layers)))
    told.job.progress.phase_seconds.update(PHASES)
    for diagnosis in (VANISHING, OVERFITTING):
        told.take(TrainingEvent(number=31, diagnosed=Diagnosed(diagnosis=diagnosis)))
    return told


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
    told = Story(TrainingJob())
    for event in story():
        told.take(event)
    job = told.job
    assert (job.state, job.last_event) == (TrainingJob.SUCCEEDED, 5)
    assert job.result.parameters_sha256 == SHA256
    assert (job.progress.epoch, job.progress.step, job.progress.validation_accuracy) == (2, 20, 0.97)
    told.take(TrainingProgress(step=7))
    assert job.progress == TrainingProgress(step=7)


def test_a_job_that_stopped_early_took_all_the_steps_it_was_to_take() -> None:
    job = TrainingJob(progress=TrainingProgress(step=8, total_steps=20, samples_per_second=1.0, samples=80))
    change = StateChanged(state=TrainingJob.SUCCEEDED, reason="stopped early", result=TrainingResult(epoch=1))
    Story(job).take(TrainingEvent(number=6, state_changed=change))
    assert (job.progress.total_steps, seconds_left(job.progress)) == (8, 0)
    assert "stopped early" in summary(job)


def test_the_view_draws_itself_on_a_terminal() -> None:
    out = io.StringIO()
    with LiveView(Console(file=out, force_terminal=True, width=80), FOOTER) as view:
        view.show(Story(running()), None)
    assert "epoch" in out.getvalue()
    assert FOOTER in out.getvalue()


def test_the_curve_the_step_and_the_layers_are_on_the_screen() -> None:
    view = drawn(eventful_story(), height=40)
    assert "loss   ━ training 0.1353   ━ validation 0.1853" in view
    assert any("\u2800" < character <= "\u28ff" for character in view)
    assert "step 4 ms" in view
    assert "backward 62 %  █ forward 25 %  █ wait 12 %" in view.replace("▓", "█").replace("▒", "█")
    assert "split" not in view
    assert "gradient by layer, step 120; in all 0.375" in view
    assert "layers.0 dense" in view
    assert "dead 25.0 %" in view


def test_what_is_wrong_is_on_the_screen_with_evidence_and_advice() -> None:
    view = " ".join(drawn(eventful_story(), height=40).split())
    assert "! vanishing gradient in layers.0 at step 60: the gradient of layers.0 (1.2e-6) is 1/40,000" in view
    assert "Use relu with he initialization" in view
    assert "! overfitting at step 100: the validation loss rose. Stop early" in view


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (200, 60), (50, 24), (50, 14), (40, 16)])
def test_it_fits_every_terminal(width: int, height: int) -> None:
    for layers in (0, 3, 200):
        lines = drawn(eventful_story(layers), width=width, height=height).splitlines()
        assert max(map(len, lines)) <= width
        assert len(lines) <= height
        assert lines[-1].startswith("Ctrl-C")


def test_on_a_terminal_of_24_lines_there_is_something_of_everything() -> None:
    view = drawn(eventful_story(9))
    for part in ("loss  ", "step 4 ms", "layers.0 dense", "layers.8 dense", "! vanishing gradient", "! overfitting"):
        assert part in view


def test_diagnoses_replace_each_other_and_go() -> None:
    told = Story(TrainingJob())
    seen = []
    for event in eventful().events:
        told.take(event)
        seen.append([(found.trouble, found.layer) for found in told.job.diagnoses])
    vanishing, overfitting = VANISHING.trouble, OVERFITTING.trouble
    assert [now for before, now in zip([[], *seen], seen, strict=False) if before != now] == [
        [(vanishing, "layers.0")],
        [(vanishing, "layers.2")],
        [(vanishing, "layers.2"), (overfitting, "")],
        [(overfitting, "")],
    ]


def test_a_view_that_is_drawn_does_not_change_any_more() -> None:
    told = Story(running())
    shown = told.copy()
    told.take(TrainingProgress(step=2000, workers=2, training_loss=7.0))
    told.take(TrainingEvent(number=9, diagnosed=Diagnosed(diagnosis=OVERFITTING)))
    assert (shown.job.progress.step, list(shown.job.diagnoses)) == (1200, [])
