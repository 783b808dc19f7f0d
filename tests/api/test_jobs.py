"""Jobs from their creation to their end and beyond."""

import hashlib
import threading
from pathlib import Path

import grpc
import numpy as np
import pytest

from chainrule.v1 import dataset_service_pb2 as datasets_pb
from chainrule.v1 import model_service_pb2 as models_pb
from chainrule.v1 import training_health_pb2 as health_pb
from chainrule.v1 import training_job_pb2 as job_pb
from chainrule.v1 import training_service_pb2 as pb
from tests.api.running import FLOWERS, SECONDS, Refusal, Service, npz, refusal, serving
from tests.unit.service.unreliable import GatedCluster
from tests.unit.service.waiting import eventually

State = job_pb.TrainingJob
STEPS = 12


def test_a_job_from_begin_to_end(service: Service) -> None:
    created = service.create(display_name="a job")
    assert created.name.startswith("jobs/")
    assert (created.state, created.display_name, created.last_event) == (State.QUEUED, "a job", 1)
    ended = service.end(created.name)
    assert (ended.state, ended.state_reason, ended.display_name) == (State.SUCCEEDED, "", "a job")
    assert ended.create_time.ToDatetime() <= ended.start_time.ToDatetime() <= ended.end_time.ToDatetime()
    progress = ended.progress
    assert (progress.epoch, progress.step, progress.total_steps, progress.samples) == (3, STEPS, STEPS, 3 * 32)
    assert (progress.workers, progress.samples_per_second) == (0, 0.0)
    assert progress.validation_loss == ended.result.validation_loss
    assert 0 <= ended.result.validation_accuracy <= 1
    assert ended.result.duration_seconds > 0
    scores = dict(ended.result.validation_scores)
    assert set(scores) == {"accuracy", "f1"}
    assert scores["accuracy"] == ended.result.validation_accuracy
    assert scores == dict(progress.validation_scores)
    confusion = [list(row.counts) for row in ended.result.confusion]
    assert sum(map(sum, confusion)) == 40 - 32
    assert sum(confusion[n][n] for n in range(3)) / 8 == scores["accuracy"]
    told = [event.epoch_completed for event in service.events(created.name) if event.HasField("epoch_completed")]
    assert dict(told[-1].validation_scores) == scores
    assert dict(told[-1].training_scores) == {"accuracy": told[-1].training_accuracy}
    assert ended.spec == created.spec
    assert not ended.HasField("error")


def test_a_class_without_a_row_is_named_in_the_first_event(service: Service) -> None:
    first, *_ = service.events(service.create(network__layers__2__dense__units=5, epochs=1).name)
    assert first.state_changed.reason == "the dataset has no row of classes 3, 4, which can't be learned"


def test_its_model(service: Service) -> None:
    ended = service.end(service.create().name)
    model = service.models.GetModel(models_pb.GetModelRequest(name=ended.result.model), timeout=SECONDS)
    assert (model.training_job, model.parameters_sha256) == (ended.name, ended.result.parameters_sha256)
    assert (model.network, list(model.input_shape), model.parameter_count) == (ended.spec.network, [4], 4 * 4 + 4 + 15)
    assert dict(model.validation_scores) == dict(ended.result.validation_scores)
    assert (model.validation_loss, model.validation_accuracy) == (
        ended.result.validation_loss,
        ended.result.validation_accuracy,
    )
    chunks = list(service.models.DownloadModel(models_pb.DownloadModelRequest(name=model.name), timeout=SECONDS))
    data = b"".join(chunk.data for chunk in chunks)
    assert (chunks[0].offset, len(data), hashlib.sha256(data).hexdigest()) == (0, model.size_bytes, model.sha256)
    service.delete(ended.name)
    listed = service.models.ListModels(models_pb.ListModelsRequest(), timeout=SECONDS)
    assert list(listed.models) == [model]


def test_a_job_that_learns_a_vector_for_every_word(service: Service) -> None:
    service.upload("words", npz(x=np.arange(40) % 13, y=np.arange(40) % 13 % 3))
    words = {
        "data__dataset": "datasets/words",
        "network__layers__0__embedding__vocabulary": 20_000,
        "network__layers__0__embedding__size": 6,
        "epochs": 15,
    }
    ends = [service.end(service.create(workers=workers, **words).name) for workers in (1, 3)]
    assert {end.state for end in ends} == {State.SUCCEEDED}
    assert ends[0].result.parameters_sha256 == ends[1].result.parameters_sha256
    assert ends[0].result.validation_accuracy >= 0.8
    model = service.models.GetModel(models_pb.GetModelRequest(name=ends[0].result.model), timeout=SECONDS)
    assert model.parameter_count == 20_000 * 6 + 6 * 3 + 3


def test_the_same_job_gives_the_same_parameters(service: Service) -> None:
    ends = [service.end(service.create(workers=workers).name) for workers in (1, 2, 4)]
    assert len({end.result.parameters_sha256 for end in ends}) == 1
    assert service.end(service.create(seed=1).name).result.parameters_sha256 != ends[0].result.parameters_sha256


def test_a_job_that_diverges(service: Service) -> None:
    ended = service.end(service.create(optimizer__learning_rate=1e30).name)
    assert (ended.state, ended.error.reason) == (State.FAILED, "TRAINING_DIVERGED")
    assert "A smaller learning rate usually helps" in ended.error.message
    assert not ended.HasField("result")
    (diagnosis,) = ended.diagnoses
    assert diagnosis.trouble == health_pb.Diagnosis.DIVERGENCE
    assert "is NaN or infinite in step" in diagnosis.evidence
    assert "learning rate" in diagnosis.advice
    *_, last_but_one, last = service.events(ended.name)
    assert last_but_one.diagnosed.diagnosis == diagnosis
    assert last.state_changed.state == State.FAILED


def test_a_request_that_is_repeated(service: Service) -> None:
    created = service.create(request_id="r-1", display_name="a job")
    ended = service.end(created.name)
    assert service.create(request_id="r-1", display_name="a job") == ended
    other = refusal(lambda: service.create(request_id="r-1", display_name="another"))
    assert other == Refusal(
        grpc.StatusCode.ALREADY_EXISTS,
        f"this request_id made {created.name}, which is a different job; use a new request_id for a new job",
        "REQUEST_ID_REUSED",
        "chainrule",
    )
    assert len(service.everything()) == 2


def test_a_repeated_request_is_answered_when_its_data_is_gone(service: Service) -> None:
    """What could be known of the job was settled by the first request."""
    created = service.create(request_id="r-1")
    service.end(created.name)
    service.datasets.DeleteDataset(datasets_pb.DeleteDatasetRequest(name="datasets/flowers"), timeout=SECONDS)
    assert service.create(request_id="r-1").name == created.name
    assert refusal(lambda: service.create(request_id="r-2")).reason == "DATASET_NOT_FOUND"


def test_many_requests_at_once_make_one_job(service: Service) -> None:
    names: list[str] = []
    threads = [threading.Thread(target=lambda: names.append(service.create(request_id="r-1").name)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert (len(names), len(set(names))) == (10, 1)


NAME = 'must be "jobs/<id>", where the id has 1 to 63 lower-case letters, digits and hyphens and begins with a letter'


@pytest.mark.parametrize("call", ["get", "cancel", "delete", "events"])
def test_what_is_not_there_and_what_is_no_name(call: str, shared: Service) -> None:
    found = refusal(lambda: getattr(shared, call)("jobs/nobody"))
    assert found == Refusal(grpc.StatusCode.NOT_FOUND, "there is no job jobs/nobody", "JOB_NOT_FOUND", "chainrule")
    for name, said in (("", "is missing"), ("nobody", "is 'nobody'"), ("jobs/../x", "is 'jobs/../x'")):
        found = refusal(lambda name=name: getattr(shared, call)(name))  # type: ignore[misc]
        assert (found.code, found.fields) == (grpc.StatusCode.INVALID_ARGUMENT, {"name": f"{said}; {NAME}"})


def test_cancelling_and_deleting(gated: Service, cluster: GatedCluster) -> None:
    name = gated.create().name
    assert cluster.entered.wait(SECONDS)
    eventually(lambda: gated.get(name).state == State.RUNNING)
    before = gated.everything()
    running = refusal(lambda: gated.delete(name))
    assert (running.code, running.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "JOB_NOT_ENDED")
    assert running.message == f"{name} is RUNNING; cancel it before deleting it"
    assert gated.everything() == before
    assert gated.cancel(name).state == State.CANCELLED
    before = gated.everything()
    again = refusal(lambda: gated.cancel(name))
    assert (again.code, again.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "JOB_HAS_ENDED")
    assert again.message == f"{name} has ended already: it is CANCELLED"
    assert gated.everything() == before
    cluster.gate.set()
    gated.delete(name)
    assert refusal(lambda: gated.get(name)).code == grpc.StatusCode.NOT_FOUND
    assert len(gated.everything()) == 1


def test_a_cancelled_job_stays_cancelled(gated: Service, cluster: GatedCluster) -> None:
    """Also when its step comes back after; and its workers are free again."""
    names = [gated.create(workers=4, min_workers=4).name for _ in range(2)]
    assert cluster.entered.wait(SECONDS)
    gated.cancel(names[0])
    assert gated.get(names[1]).state_reason == "waits for 4 workers; 0 of 4 are free"
    cluster.gate.set()
    assert gated.end(names[1]).state == State.SUCCEEDED
    assert gated.get(names[0]).state == State.CANCELLED


def test_two_at_once_and_others_queue_with_a_reason(gated: Service, cluster: GatedCluster) -> None:
    names = [gated.create(workers=workers, min_workers=workers).name for workers in (2, 2, 3, 1)]
    eventually(lambda: [gated.get(name).state for name in names[:2]] == [State.RUNNING] * 2)
    reasons = ["waits for 3 workers; 0 of 4 are free", "waits behind 1 job in the queue"]
    eventually(lambda: [gated.get(name).state_reason for name in names[2:]] == reasons)
    assert [gated.get(name).state for name in names[2:]] == [State.QUEUED] * 2
    cluster.gate.set()
    assert [gated.end(name).state for name in names] == [State.SUCCEEDED] * 4


def test_the_list_is_newest_first_in_pages(gated: Service) -> None:
    names = [gated.create().name for _ in range(7)]
    found: list[str] = []
    token = ""
    while token or not found:
        asked = pb.ListTrainingJobsRequest(page_size=3, page_token=token)
        answer = gated.training.ListTrainingJobs(asked, timeout=SECONDS)
        found += [job.name for job in answer.training_jobs]
        token = answer.next_page_token
        gated.create()  # newer ones don't shift the pages
    assert found == names[::-1]


@pytest.mark.parametrize(
    ("asked", "field", "told"),
    [
        ({"page_token": "x"}, "page_token", "is 'x'; must be the next_page_token of the page before, unchanged"),
        ({"page_token": "\N{SNOWMAN}" * 9}, "page_token", "must be the next_page_token of the page before, unchanged"),
        ({"page_size": -1}, "page_size", "is -1; must be 0 (for 50) or more"),
    ],
    ids=str,
)
def test_what_is_no_page(asked: dict[str, object], field: str, told: str, shared: Service) -> None:
    calls = (
        lambda: shared.training.ListTrainingJobs(pb.ListTrainingJobsRequest(**asked), timeout=SECONDS),  # type: ignore[arg-type]
        lambda: shared.datasets.ListDatasets(datasets_pb.ListDatasetsRequest(**asked), timeout=SECONDS),  # type: ignore[arg-type]
        lambda: shared.models.ListModels(models_pb.ListModelsRequest(**asked), timeout=SECONDS),  # type: ignore[arg-type]
    )
    for call in calls:
        found = refusal(call)
        assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
        assert told in found.fields[field]


def test_after_a_restart_everything_is_there_and_goes_on(tmp_path: Path) -> None:
    """The second half of the job is trained by another coordinator, to the same parameters."""
    cluster = GatedCluster()
    with serving(tmp_path) as service:
        service.upload("flowers", FLOWERS)
        undisturbed = service.end(service.create(request_id="r-1").name)
    with serving(tmp_path, cluster, checkpoint_seconds=0.0) as service:
        assert without_live_loss(service.get(undisturbed.name)) == without_live_loss(undisturbed)
        names = [service.create(workers=4, min_workers=4).name for _ in range(2)]
        assert cluster.entered.wait(SECONDS)
        cluster.let_through(5)
        eventually(lambda: service.get(names[0]).progress.step >= 5)
        threading.Timer(0.2, cluster.gate.set).start()
        seen = service.get(names[0]).last_event
    with serving(tmp_path) as service:
        ended = [service.end(name) for name in names]
        assert [job.state for job in ended] == [State.SUCCEEDED] * 2
        assert {job.result.parameters_sha256 for job in ended} == {undisturbed.result.parameters_sha256}
        events = service.events(names[0])
        assert [event.number for event in events] == list(range(1, ended[0].last_event + 1))
        assert ended[0].last_event > seen
        queued = [e.state_changed.reason for e in events if e.state_changed.state == State.QUEUED]
        assert queued == ["", "goes on when the coordinator, which was stopped, starts again"]
        assert [e.epoch_completed.epoch for e in events if e.HasField("epoch_completed")] == [1, 2, 3]
        assert service.create(request_id="r-1").result == undisturbed.result


def without_live_loss(job: job_pb.TrainingJob) -> job_pb.TrainingJob:
    """The loss of its very last step is not kept over a restart; then the last epoch's stands in."""
    job.progress.ClearField("training_loss")
    return job
