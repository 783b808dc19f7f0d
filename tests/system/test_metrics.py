"""What Prometheus sees of a job that runs."""

import os
import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from chainrule.v1.training_event_pb2 import TrainingEvent
from tests.system.coordinator import Coordinator, digits

pytestmark = pytest.mark.system


def test_the_loss_of_a_running_job_falls(coordinator: Coordinator) -> None:
    client = coordinator.client
    job = client.create_job(digits(optimizer={"learning_rate": 0.0003}, epochs=100))
    label = job.name.removeprefix("jobs/")
    training, validation, steps = [], [], []
    for update in client.watch(job.name):
        if isinstance(update, TrainingEvent) and update.HasField("epoch_completed"):
            training.append(coordinator.sample("chainrule_training_loss", job_id=label) or 0)
            validation.append(coordinator.sample("chainrule_validation_loss", job_id=label) or 0)
            steps.append(coordinator.sample("chainrule_steps_total", job_id=label) or 0)
    assert 0 < training[-1] < training[0] / 2
    assert 0 < validation[-1] < validation[0] / 2
    assert steps == sorted(steps)
    assert steps[0] < steps[-1]


def test_the_exposition_is_sound(coordinator: Coordinator) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        missing = "promtool is not on the path; it is in Debian's package prometheus (apt-get install prometheus)"
        assert not os.environ.get("CHAINRULE_REQUIRE_TOOLS"), missing
        pytest.skip(missing)
    client = coordinator.client
    job = client.create_job(digits(epochs=100_000))  # not over before it was looked at
    next(
        event
        for event in client.watch(job.name)
        if isinstance(event, TrainingEvent) and event.HasField("epoch_completed")
    )
    exposition = coordinator.scrape()
    client.cancel_job(job.name)
    client.wait(job.name)
    families = {family.name: family for family in text_string_to_metric_families(exposition)}
    empty = {name for name, family in families.items() if not family.samples}
    # What only sigmoids have, and what comes some seconds later.
    assert empty <= {"chainrule_layer_saturated_ratio", "chainrule_checkpoint_bytes"}
    assert f'chainrule_training_loss{{job_id="{job.name.removeprefix("jobs/")}"}}' in exposition
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=exposition, capture_output=True, text=True, timeout=60, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
