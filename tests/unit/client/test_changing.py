"""Jobs that are changed, found by label, and made models of before their end: the client and its commands."""

from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from chainrule import Client
from chainrule.channel import SERVICE_CONFIG
from chainrule.cli.plain import describe
from chainrule.errors import Aborted, NotFound
from chainrule.v1 import training_service_pb2
from chainrule.v1.training_event_pb2 import TrainingEvent
from chainrule.v1.training_job_pb2 import LearningRateChange, TrainingJob, TrainingJobSpec
from tests.unit.client.fake_changes import ETAG
from tests.unit.client.fakes import FakeService, FakeTraining, serving
from tests.unit.client.test_cli import lines, run, write_job


@dataclass
class Stopping(FakeTraining):
    """Refuses the first list."""

    refused: int = 0

    def ListTrainingJobs(  # noqa: N802
        self, request: training_service_pb2.ListTrainingJobsRequest, context: grpc.ServicerContext
    ) -> training_service_pb2.ListTrainingJobsResponse:
        if not self.refused:
            self.refused += 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "the coordinator is stopping")
        return super().ListTrainingJobs(request, context)


def test_what_is_given_is_changed_and_nothing_else(client: Client) -> None:
    client.create_job(TrainingJob(spec=TrainingJobSpec(workers=2, priority=3), display_name="one", labels={"a": "b"}))
    job = client.update_job("j1", priority=0, learning_rate=0.25, labels={})
    assert (job.display_name, job.spec.workers, job.spec.priority) == ("one", 2, 0)
    assert (job.learning_rate, dict(job.labels)) == (0.25, {})
    assert client.update_job("j1") == job
    assert client.update_job("j1", display_name="two", etag=ETAG).display_name == "two"
    with pytest.raises(Aborted, match="has been changed"):
        client.update_job("j1", display_name="three", etag="old")


def test_checkpoints_and_models_of_them(client: Client) -> None:
    client.create_job(TrainingJobSpec())
    assert [each.step for each in client.checkpoints("j1")] == [50, 40, 30]
    assert client.create_model("j1", 40, "good").checkpoint == "jobs/j1/checkpoints/40"
    assert client.create_model("jobs/j1", "@best").name == "models/j1-@best"
    with pytest.raises(NotFound):
        client.create_model("j1", 0)


def test_only_what_does_no_more_when_it_is_repeated_is_tried_again() -> None:
    (config,) = SERVICE_CONFIG["methodConfig"]
    tried = {name["method"] for name in config["name"]}
    changing = ("Update", "Pause", "Resume", "Cancel", "Delete", "Upload", "Watch", "Import")
    assert not [method for method in tried if method.startswith(changing)]


def test_a_call_that_found_nobody_is_made_again() -> None:
    """The service is stopping, and then is there again."""
    training = Stopping()
    with serving(FakeService(training=training)) as service, Client(service.address) as client:
        assert list(client.jobs()) == []
    assert training.refused == 1


def test_labels_and_settings_by_command(service: FakeService, tmp_path: Path) -> None:
    server = ["--server", service.address]
    run("train", write_job(tmp_path), *server, "--detach", "--label", "team=blue", "--label", "x=a=b")
    assert dict(service.training.jobs["jobs/j1"].labels) == {"team": "blue", "x": "a=b"}
    service.training.jobs["jobs/j1"].etag = ETAG
    changes = ["--label", "team=red", "--no-label", "x", "--priority", "7", "--learning-rate", "0.5", "--name", "n"]
    told = run("jobs", "update", "j1", *changes, *server)
    assert told.exit_code == 0
    assert "labels      team=red" in told.stdout
    assert "priority 7" in told.stdout
    assert "\nlabels:\n  team: red\n" in run("jobs", "show", "j1", *server).stdout
    job = service.training.jobs["jobs/j1"]
    assert (dict(job.labels), job.learning_rate, job.display_name) == ({"team": "red"}, 0.5, "n")
    (found,) = lines(run("jobs", "update", "j1", "--max-workers", "9", "--json", *server))
    assert found["spec"]["max_workers"] == 9
    assert run("jobs", "update", "j1", *server).exit_code == 2
    assert "must be KEY=VALUE" in run("jobs", "update", "j1", "--label", "team", *server).stderr


def test_who_is_always_too_late_with_labels_gives_up(service: FakeService, tmp_path: Path) -> None:
    server = ["--server", service.address]
    run("train", write_job(tmp_path), *server, "--detach")
    service.training.jobs["jobs/j1"].etag = "old"
    late = run("jobs", "update", "j1", "--label", "a=b", *server)
    assert (late.exit_code, late.stderr) == (1, "chainrule: jobs/j1 has been changed\n")


def test_checkpoints_by_command(service: FakeService, tmp_path: Path) -> None:
    server = ["--server", service.address]
    run("train", write_job(tmp_path), *server, "--detach")
    assert "40" in run("jobs", "checkpoints", "j1", *server).stdout
    assert [each["step"] for each in lines(run("jobs", "checkpoints", "j1", "--json", *server))] == ["50", "40", "30"]
    made = run("models", "create", "j1", "40", "--id", "good", *server).stdout
    assert made == "models/good: 4,810 parameters, as of jobs/j1/checkpoints/40\n"
    assert lines(run("models", "create", "j1", "--json", *server))[0]["checkpoint"] == "jobs/j1/checkpoints/@latest"
    assert run("models", "create", "j1", "0", *server).exit_code == 1


def test_what_was_changed_is_told_in_a_line() -> None:
    event = TrainingEvent()
    event.settings_changed.update_mask.paths.extend(["display_name", "labels", "spec.max_workers", "learning_rate"])
    event.settings_changed.training_job.CopyFrom(TrainingJob(labels={"a": "b"}, learning_rate=0.5, display_name="n"))
    event.settings_changed.training_job.spec.max_workers = 3
    assert describe(TrainingJob(), event) == (
        "changed: display name n, labels a=b, max workers 3, "
        "learning rate 0.5, which holds from one of the next steps on"
    )
    changed = TrainingEvent(learning_rate_changed=LearningRateChange(step=1200, learning_rate=0.5))
    assert describe(TrainingJob(), changed) == "learning rate 0.5 from step 1,200 on"
