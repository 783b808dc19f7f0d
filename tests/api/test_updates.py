"""Settings that change while a job is there: masks, etags, and what they do to it."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.field_mask_pb2 import FieldMask

from chainrule.v1 import training_job_pb2 as job_pb
from chainrule.v1 import training_service_pb2 as pb
from chainrule.v1.model_service_pb2 import GetModelRequest
from tests.api.running import FLOWERS, SECONDS, Refusal, Service, refusal, request, serving
from tests.unit.service.unreliable import GatedCluster
from tests.unit.service.waiting import eventually

State = job_pb.TrainingJob


def update(service: Service, name: str, changes: Mapping[str, Any], *mask: str) -> job_pb.TrainingJob:
    asked = json_format.ParseDict({"name": name, **changes}, job_pb.TrainingJob())
    request = pb.UpdateTrainingJobRequest(training_job=asked, update_mask=FieldMask(paths=mask))
    return service.training.UpdateTrainingJob(request, timeout=SECONDS)


def refused(service: Service, name: str, changes: Mapping[str, Any], *mask: str) -> Refusal:
    before = service.get(name)
    found = refusal(lambda: update(service, name, changes, *mask))
    assert service.get(name).etag == before.etag
    return found


def listed(service: Service, **fields: Any) -> list[str]:
    """Names of all pages."""
    names: list[str] = []
    asked = pb.ListTrainingJobsRequest(page_size=2, **fields)
    while True:
        page = service.training.ListTrainingJobs(asked, timeout=SECONDS)
        names += [job.name for job in page.training_jobs]
        if not page.next_page_token:
            return names
        asked.page_token = page.next_page_token


def labelled(service: Service, **labels: str) -> str:
    asked = request()
    asked.training_job.labels.update(labels)
    return service.training.CreateTrainingJob(asked, timeout=SECONDS).name


def test_lists_by_filter_and_order(gated: Service) -> None:
    names = [labelled(gated, team=team) for team in ("blue", "red", "blue", "blue")]
    plain = gated.create(priority=7).name
    assert listed(gated) == [plain, *reversed(names)]
    assert listed(gated, filter="labels.team = blue", order_by="create_time") == [names[0], names[2], names[3]]
    assert listed(gated, order_by="priority desc, create_time") == [plain, *names]
    gated.cancel(names[3])
    assert listed(gated, filter='state != CANCELLED AND labels.team = "blue"') == [names[2], names[0]]


def test_a_page_token_is_of_one_filter_and_order(gated: Service) -> None:
    for _ in range(3):
        labelled(gated, team="blue")
    first = gated.training.ListTrainingJobs(pb.ListTrainingJobsRequest(page_size=1), timeout=SECONDS)
    for other in ({"filter": "labels.team = blue"}, {"order_by": "create_time"}):
        asked = json_format.ParseDict({"page_token": first.next_page_token, **other}, pb.ListTrainingJobsRequest())
        found = refusal(partial(gated.training.ListTrainingJobs, asked, timeout=SECONDS))
        assert found.code == grpc.StatusCode.INVALID_ARGUMENT
        assert set(found.fields) == {"page_token"}


@pytest.mark.parametrize(
    "labels",
    [{"Team": "x"}, {"": "x"}, {"a" * 64: "x"}, {"a": "x" * 64}, {"a": "\n"}, {f"k{n}": "" for n in range(65)}],
)
def test_labels_that_are_none(labels: dict[str, str], shared: Service) -> None:
    found = refusal(lambda: labelled(shared, **labels))
    assert found.code == grpc.StatusCode.INVALID_ARGUMENT
    assert all(field.startswith("training_job.labels") for field in found.fields)


def test_what_the_mask_names_is_changed_and_told(gated: Service, cluster: GatedCluster) -> None:
    name = gated.create(display_name="one").name
    assert cluster.entered.wait(SECONDS)
    eventually(lambda: gated.get(name).state == State.RUNNING)
    before = gated.get(name)
    changes = {"displayName": "two", "labels": {"a": "b"}, "spec": {"priority": 9, "maxWorkers": 3}}
    after = update(gated, name, changes, "display_name", "labels", "spec.priority")
    assert (after.display_name, dict(after.labels), after.spec.priority) == ("two", {"a": "b"}, 9)
    assert after.spec.max_workers == before.spec.max_workers
    assert after.etag != before.etag
    again = update(gated, name, changes, "display_name", "labels", "spec.priority")
    assert (again.etag, again.last_event) == (after.etag, after.last_event)  # nothing was left to change
    event = next(u.event for u in gated.watch(name) if u.event.HasField("settings_changed")).settings_changed
    assert set(event.update_mask.paths) == {"display_name", "labels", "spec.priority"}
    assert (event.training_job.display_name, event.training_job.spec.priority) == ("two", 9)


def test_a_change_can_be_tried_without_making_it(gated: Service) -> None:
    before = gated.get(gated.create(display_name="one", priority=4).name)
    asked = job_pb.TrainingJob(name=before.name, display_name="two", spec=job_pb.TrainingJobSpec(priority=9))
    tried = gated.training.UpdateTrainingJob(
        pb.UpdateTrainingJobRequest(training_job=asked, validate_only=True), timeout=SECONDS
    )
    assert (tried.display_name, tried.spec.priority) == ("two", 9)
    assert tried.etag in ("r1", "r2", "r3")  # as it is, queued, starting or running
    after = gated.get(before.name)
    assert (after.display_name, after.spec) == (before.display_name, before.spec)
    asked.spec.priority = 101
    wrong = pb.UpdateTrainingJobRequest(training_job=asked, validate_only=True)
    found = refusal(lambda: gated.training.UpdateTrainingJob(wrong, timeout=SECONDS))
    assert list(found.fields) == ["training_job.spec.priority"]


def test_without_a_mask_what_is_set_is_changed_and_a_star_stands_for_all(gated: Service) -> None:
    name = gated.create(display_name="one", priority=4).name
    assert update(gated, name, {"labels": {"a": "b"}}).display_name == "one"
    cleared = update(gated, name, {"spec": {"workers": 1, "maxWorkers": 3}}, "*")
    assert (cleared.display_name, dict(cleared.labels), cleared.spec.priority) == ("", {}, 0)
    assert (cleared.spec.workers, cleared.spec.min_workers, cleared.spec.max_workers) == (1, 1, 3)


@pytest.mark.parametrize(
    ("changes", "mask", "field"),
    [
        ({"spec": {"epochs": 5}}, "spec.epochs", "update_mask"),
        ({}, "labels.team", "update_mask"),
        ({}, "nothing", "update_mask"),
        ({"spec": {"priority": 101}}, "spec.priority", "training_job.spec.priority"),
        ({"spec": {"maxWorkers": 5}}, "spec.max_workers", "training_job.spec.max_workers"),
        ({"spec": {"minWorkers": 3}}, "spec.min_workers", "training_job.spec.min_workers"),
        ({"learningRate": 0}, "learning_rate", "training_job.learning_rate"),
        ({"learningRate": "NaN"}, "learning_rate", "training_job.learning_rate"),
        ({"displayName": "x" * 101}, "display_name", "training_job.display_name"),
        ({"labels": {"A": ""}}, "labels", "training_job.labels"),
    ],
)
def test_wrong_changes_change_nothing(changes: dict[str, Any], mask: str, field: str, shared: Service) -> None:
    name = shared.create().name
    shared.end(name)
    found = refused(shared, name, changes, mask)
    assert (found.code, list(found.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, [field]), found


def test_of_an_ended_job_only_what_people_call_it(shared: Service) -> None:
    name = shared.create().name
    last = shared.end(name).last_event
    found = refused(shared, name, {"spec": {"priority": 1}}, "spec.priority")
    assert (found.code, found.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "JOB_HAS_ENDED")
    after = update(shared, name, {"displayName": "the best", "labels": {"keep": "yes"}})
    assert (after.display_name, dict(after.labels), after.state) == ("the best", {"keep": "yes"}, State.SUCCEEDED)
    assert [event.WhichOneof("kind") for event in shared.events(name, last)] == ["settings_changed"]


def test_an_etag_that_is_old_refuses_every_change(gated: Service, cluster: GatedCluster) -> None:
    name = gated.create().name
    old = gated.get(name).etag
    assert cluster.entered.wait(SECONDS)
    eventually(lambda: gated.get(name).state == State.RUNNING)
    now = gated.get(name).etag
    assert now != old
    training = gated.training
    calls = (
        lambda etag: update(gated, name, {"displayName": "new", "etag": etag}),
        lambda etag: training.PauseTrainingJob(pb.PauseTrainingJobRequest(name=name, etag=etag), timeout=SECONDS),
        lambda etag: training.ResumeTrainingJob(pb.ResumeTrainingJobRequest(name=name, etag=etag), timeout=SECONDS),
        lambda etag: training.CancelTrainingJob(pb.CancelTrainingJobRequest(name=name, etag=etag), timeout=SECONDS),
        lambda etag: training.DeleteTrainingJob(pb.DeleteTrainingJobRequest(name=name, etag=etag), timeout=SECONDS),
    )
    for call in calls:
        found = refusal(partial(call, old))
        assert (found.code, found.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
        etag = gated.get(name).etag
        call(etag)
    assert refusal(lambda: gated.get(name)).code == grpc.StatusCode.NOT_FOUND


def test_the_etag_stays_while_steps_are_taken(gated: Service, cluster: GatedCluster) -> None:
    name = gated.create().name
    assert cluster.entered.wait(SECONDS)
    eventually(lambda: gated.get(name).state == State.RUNNING)
    etag = gated.get(name).etag
    cluster.let_through(4)
    eventually(lambda: gated.get(name).progress.epoch == 1)
    assert gated.get(name).etag == etag


def test_a_request_that_is_repeated_returns_its_job_whatever_changed_since(gated: Service) -> None:
    made = gated.create(request_id="r", display_name="one")
    update(gated, made.name, {"displayName": "two", "spec": {"priority": 3}}, "display_name", "spec.priority")
    assert gated.create(request_id="r", display_name="one").name == made.name
    assert refusal(lambda: gated.create(request_id="r", display_name="two")).reason == "REQUEST_ID_REUSED"


def test_worker_bounds_hold_at_once(gated: Service, cluster: GatedCluster) -> None:
    name = gated.create(workers=3).name
    assert cluster.entered.wait(SECONDS)
    update(gated, name, {"spec": {"workers": 1, "maxWorkers": 1}}, "spec.workers", "spec.max_workers")
    eventually(lambda: cluster.lent[-1] == 1)
    update(gated, name, {"spec": {"maxWorkers": 4}}, "spec.max_workers")
    eventually(lambda: cluster.lent[-1] == 4)


def rates(service: Service, name: str) -> list[tuple[int, float]]:
    events = service.events(name)
    found = [event.learning_rate_changed for event in events if event.HasField("learning_rate_changed")]
    return [(change.step, change.learning_rate) for change in found]


def paused(service: Service, name: str) -> None:
    service.training.PauseTrainingJob(pb.PauseTrainingJobRequest(name=name), timeout=SECONDS)


def resume(service: Service, name: str) -> None:
    service.training.ResumeTrainingJob(pb.ResumeTrainingJobRequest(name=name), timeout=SECONDS)


def test_another_learning_rate_over_restarts_of_the_coordinator_gives_the_same_bits(tmp_path: Path) -> None:
    """One job takes the rate at step 5 and goes on; the other is stopped before, right after, and again."""
    for folder in "ab":
        (tmp_path / folder).mkdir()
    cluster = GatedCluster()
    with serving(tmp_path / "a", cluster, checkpoint_seconds=0.0) as service:
        service.upload("flowers", FLOWERS)
        calm = service.create().name
        assert cluster.entered.wait(SECONDS)
        update(service, calm, {"learningRate": 0.5})
        for taken in range(1, 12):
            cluster.let_through(1)
            eventually(partial(_has_taken, service, calm, taken))
            if service.get(calm).progress.learning_rate == 0.5:
                break
        cluster.gate.set()
        result = service.end(calm)
        ((step, rate),) = rates(service, calm)
        assert (rate, result.learning_rate, result.spec.optimizer.learning_rate) == (0.5, 0.5, 0.05)
        model = service.models.GetModel(GetModelRequest(name=result.result.model), timeout=SECONDS)
        assert [(each.step, each.learning_rate) for each in model.learning_rate_changes] == [(step, 0.5)]

    cluster = GatedCluster()
    with serving(tmp_path / "b", cluster, checkpoint_seconds=0.0) as service:
        service.upload("flowers", FLOWERS)
        shaken = service.create().name
        assert cluster.entered.wait(SECONDS)
        cluster.let_through(step - 1)  # the step at which a pause is seen is taken, too
        eventually(lambda: service.get(shaken).progress.step == step - 1)
        paused(service, shaken)
        cluster.let_through(1)
        eventually(lambda: _checkpoint(service, shaken) == step)
        update(service, shaken, {"learningRate": 0.5})
        service.stop()
    for _ in range(2):
        cluster = GatedCluster()
        with serving(tmp_path / "b", cluster, checkpoint_seconds=0.0) as service:
            if service.get(shaken).state == State.PAUSED:
                resume(service, shaken)
            assert cluster.entered.wait(SECONDS)
            cluster.let_through(2)
            service.stop()
            cluster.gate.set()
    with serving(tmp_path / "b") as service:
        again = service.end(shaken)
        assert rates(service, shaken) == [(step, 0.5)]
        assert again.result.parameters_sha256 == result.result.parameters_sha256


def _has_taken(service: Service, name: str, steps: int) -> bool:
    return service.get(name).progress.step == steps


def _checkpoint(service: Service, name: str) -> int:
    found = service.training.ListCheckpoints(pb.ListCheckpointsRequest(parent=name), timeout=SECONDS).checkpoints
    return max((checkpoint.step for checkpoint in found), default=0)


def test_who_changed_it_is_in_the_audit_log(service: Service) -> None:
    name = service.create().name
    service.end(name)
    update(service, name, {"displayName": "new"})
    log = Path(service.addresses["data_dir"], "audit.log").read_text().splitlines()
    assert json.loads(log[-1])["resource"] == name
