"""Jobs whose mini-batches a client sends, over gRPC: the laws, and what is refused."""

import gc
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from chainrule.v1 import training_job_pb2 as job_pb
from chainrule.v1 import training_service_pb2 as training_pb
from chainrule.v1.model_service_pb2 import GetModelRequest
from service.cluster.local_cluster import LocalCluster
from tests.api.online import (
    BATCH,
    FINISH,
    ONLINE,
    STEPS,
    batch,
    create,
    stream,
    tensor,
    trained,
    without_durable,
)
from tests.api.running import FLOWERS, ROWS, SECONDS, Service, X, Y, npz, refusal, refused, serving
from tests.unit.service.waiting import eventually
from worker.shards import Shards


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """With room for jobs that a test leaves without a client."""
    with serving(tmp_path_factory.mktemp("data"), LocalCluster(slots=64), max_dataset_bytes=50_000) as service:
        service.upload("flowers", FLOWERS)
        yield service


SUCCEEDED = job_pb.TrainingJob.SUCCEEDED


def test_it_learns_what_it_is_sent_and_leaves_a_model(shared: Service) -> None:
    job = create(shared)
    ended, answers = trained(shared, job, 30)
    assert ended.state == SUCCEEDED
    assert [each.step for each in answers] == list(range(1, 31))
    losses = [each.loss for each in answers]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert all(each.gradient_norm > 0 for each in answers)
    assert shared.models.GetModel(GetModelRequest(name=ended.result.model), timeout=SECONDS).input_shape == [4]
    epochs = [event.epoch_completed for event in shared.events(job.name) if event.HasField("epoch_completed")]
    # Every epoch has four batches, but the last, which the client ended.
    assert [(epoch.epoch, epoch.step) for epoch in epochs] == [(n, min(4 * n, 30)) for n in range(1, 9)]
    assert epochs[0].training_loss == pytest.approx(np.mean(losses[:4]))
    assert (ended.progress.step, ended.progress.total_steps, ended.progress.samples) == (30, 30, 240)


def test_it_gives_the_same_bits_on_any_number_of_workers(shared: Service) -> None:
    runs = [trained(shared, create(shared, workers=workers), 10) for workers in (1, 2, 3)]
    assert len({ended.result.parameters_sha256 for ended, _ in runs}) == 1
    assert len({tuple(without_durable(answers)) for _, answers in runs}) == 1


def test_it_gives_the_bits_of_a_job_that_takes_the_same_rows_from_a_dataset(service: Service) -> None:
    """Sent the rows in the order in which the other takes them, epoch by epoch; with dropout, weights and Adam."""
    weights = np.linspace(0.5, 1.5, ROWS, dtype=np.float32)
    service.upload("weighed", npz(x=X, y=Y, w=weights))
    data = {"dataset": "datasets/weighed", "weight_column": "w", "validation_fraction": 0}
    plain = service.end(create(service, data=data, epochs=2, seed=5).name)
    online = {"online": {"input_shape": [4], "steps_per_epoch": ROWS // BATCH}, "weight_column": "w"}
    job = create(service, data=online, seed=5)
    shards = Shards(ROWS, 0.0, BATCH, 1, 5)
    with stream(service, job.name) as sending:
        sending.started()
        for step in range(2 * ROWS // BATCH):
            rows = shards.training(step, 0)
            columns = (("x", "FP32", X), ("y", "INT64", Y), ("w", "FP32", weights))
            sending.send(batch(step + 1, tensors=[tensor(name, kind, column[rows]) for name, kind, column in columns]))
        sending.answers(2 * ROWS // BATCH)
        ended = sending.finished()
    assert ended.result.parameters_sha256 == plain.result.parameters_sha256
    assert ended.result.training_loss == plain.result.training_loss


def test_a_client_that_was_lost_goes_on_where_its_job_stands(service: Service) -> None:
    """It gets the answers that it missed, and what it sends again gives the same bits."""
    undisturbed, expected = trained(service, create(service), 12)
    job = create(service)
    with stream(service, job.name) as sending:
        sending.started()
        sending.send(*map(batch, range(1, 8)))
        answers = sending.answers(5)
    # Nobody took the answers to 6 and 7.
    eventually(lambda: service.get(job.name).progress.step == 7)
    waiting = service.get(job.name)
    assert waiting.state == job_pb.TrainingJob.RUNNING
    assert waiting.state_reason.startswith("waits for a client to send mini-batches; is paused when none has come for")
    with stream(service, job.name, after_step=5) as sending:
        started = sending.started()
        assert (started.step, started.training_job.name) == (7, job.name)
        answers += sending.answers(2)
        sending.send(*map(batch, range(8, 13)))
        answers += sending.answers(5)
        ended = sending.finished()
    assert without_durable(answers) == without_durable(expected)
    assert ended.result.parameters_sha256 == undisturbed.result.parameters_sha256


def test_it_outlives_the_coordinator(tmp_path: Path) -> None:
    """Steps that no checkpoint had are taken again, from what the client has kept."""
    with serving(tmp_path) as service:
        undisturbed, expected = trained(service, create(service), 12)
        job = create(service)
        with stream(service, job.name) as sending:
            sending.started()
            sending.send(*map(batch, range(1, 7)))
            answers = sending.answers(6)
            assert answers[-1].durable_step == STEPS
            service.stop()
            sending.send(*map(batch, range(7, 9)))
            with pytest.raises(grpc.RpcError) as broken:
                sending.answers(3)
    assert broken.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    with serving(tmp_path) as service, stream(service, job.name, after_step=6) as sending:
        step = sending.started().step
        assert step >= STEPS
        sending.send(*map(batch, range(step + 1, 13)))
        later = {answer.step: answer for answer in sending.answers(12 - min(step, 6))}
        ended = sending.finished()
    everything = {answer.step: answer for answer in answers} | later
    assert without_durable([everything[step] for step in range(1, 13)]) == without_durable(expected)
    assert ended.result.parameters_sha256 == undisturbed.result.parameters_sha256


def test_it_can_be_ended_where_an_epoch_ended_even_by_another_coordinator(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        job = create(service)
        with stream(service, job.name) as sending:
            sending.started()
            sending.send(*map(batch, range(1, 2 * STEPS + 1)))
            losses = [answer.loss for answer in sending.answers(2 * STEPS)]
    with serving(tmp_path) as service, stream(service, job.name) as sending:
        assert sending.started().step == 2 * STEPS
        ended = sending.finished()
        assert (ended.progress.step, ended.result.epoch) == (2 * STEPS, 2)
        assert ended.result.training_loss == pytest.approx(np.mean(losses[STEPS:]))


def test_no_more_is_read_than_may_be_unanswered(gated: Service, cluster: Any) -> None:
    """While its workers compute nothing, a job takes eight batches of a client that sends on and on."""
    job = create(gated)
    with stream(gated, job.name) as sending:
        sending.started()
        sending.send(*map(batch, range(1, 13)))
        sending.send(batch(99))
        time.sleep(0.3)
        assert gated.get(job.name).progress.step == 0
        cluster.gate.set()
        # What comes ninth and after that is read as answers make room; and the last is looked at when its time comes.
        assert [answer.step for answer in sending.answers(12)] == list(range(1, 13))
        told = refusal(sending.answer)
        assert told.fields == {"batch.step": "is 99; the next batch is for step 13"}


def test_a_job_that_is_sent_nothing_is_paused_and_resumed_by_the_next_stream(tmp_path: Path) -> None:
    with serving(tmp_path, online_wait_seconds=0.6) as service:
        job = create(service)
        with stream(service, job.name) as sending:
            sending.started()
            sending.send(batch(1), batch(2))
            sending.answers(2)
            told = refusal(sending.answer)
        assert (told.code, told.reason) == (grpc.StatusCode.ABORTED, "ONLINE_SILENT")
        paused = service.get(job.name)
        assert paused.state == job_pb.TrainingJob.PAUSED
        assert paused.state_reason == "no mini-batch came for 0.6 seconds; goes on when a client sends the next one"
        with stream(service, job.name) as sending:
            assert sending.started().step == 2
            sending.send(batch(3))
            assert sending.answer().durable_step == 2
            assert sending.finished().progress.step == 3
        states = [event.state_changed.state for event in service.events(job.name) if event.HasField("state_changed")]
        state = job_pb.TrainingJob
        begins = [state.QUEUED, state.STARTING, state.RUNNING]
        assert states == [*begins, state.PAUSED, *begins, state.SUCCEEDED]


def test_it_can_be_paused_and_cancelled_like_any_other(service: Service) -> None:
    job = create(service)
    with stream(service, job.name) as sending:
        sending.started()
        sending.send(batch(1))
        sending.answer()
        service.training.PauseTrainingJob(training_pb.PauseTrainingJobRequest(name=job.name), timeout=SECONDS)
        told = refusal(sending.answer)
        assert (told.code, told.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "JOB_PAUSED")
    with stream(service, job.name) as sending:
        assert sending.started().step == 1
        service.cancel(job.name)
        told = refusal(sending.answer)
        assert (told.code, told.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "JOB_HAS_ENDED")
        assert told.message == f"{job.name} has ended: it is CANCELLED"


def test_one_stream_at_a_time(service: Service) -> None:
    job = create(service)
    with stream(service, job.name) as first:
        first.started()
        with stream(service, job.name) as second:
            told = refusal(second.started)
        assert (told.code, told.reason) == (grpc.StatusCode.ABORTED, "ONLINE_STREAM_OPEN")
        first.send(batch(1))
        assert first.answer().step == 1
        first.end()
    with stream(service, job.name) as next_one:
        assert next_one.started().step == 1


def test_clients_that_leave_in_the_middle_do_no_harm(shared: Service) -> None:
    """The call is over before its generator is: what is noted of it then must not ask the call for anything."""
    job, step, left = create(shared), 0, 0
    while left < 40:
        with stream(shared, job.name) as sending:
            try:
                step = sending.started().step
            except grpc.RpcError as error:  # the one before is still being left
                if refused(error).reason != "ONLINE_STREAM_OPEN":
                    raise
                time.sleep(0.01)
                continue
            sending.send(*map(batch, range(step + 1, step + 5)))
            sending.answer()
            left += 1
    gc.collect()
    eventually(lambda: shared.get(job.name).progress.step > step)


def test_a_step_that_diverges_ends_the_job_and_says_so(service: Service) -> None:
    job = create(service, optimizer={"learning_rate": 1e30, "sgd": {}})
    with stream(service, job.name) as sending:
        sending.started()
        sending.send(*map(batch, range(1, 9)))
        with pytest.raises(grpc.RpcError) as error:
            sending.answers(8)
    told = refused(error.value)
    assert (told.code, told.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "JOB_HAS_ENDED")
    assert "NaN or infinite in step" in told.message
    assert service.get(job.name).error.reason == "TRAINING_DIVERGED"


NAN = X[:BATCH].copy()
NAN[2, 1] = np.nan
GOOD_X, GOOD_Y = tensor("x", "FP32", X[:BATCH]), tensor("y", "INT64", Y[:BATCH])


@pytest.mark.parametrize(
    ("step", "tensors", "field", "told"),
    [
        (3, None, "batch.step", "is 3; the next batch is for step 2"),
        (1, None, "batch.step", "is 1; the next batch is for step 2"),
        (2, [GOOD_X], "batch.tensors", "has none for 'y'"),
        (2, [GOOD_X, GOOD_X], "batch.tensors[1].name", "is 'x'; the job takes each of these once: 'x', 'y'"),
        (2, [tensor("z", "FP32", X[:BATCH])], "batch.tensors[0].name", "is 'z'; the job takes each of these once"),
        (2, [tensor("x", "float", X[:BATCH])], "batch.tensors[0].datatype", "is 'float'; must be one of FP32, FP64"),
        (
            2,
            [tensor("x", "FP32", X[:9])],
            "batch.tensors[0].shape",
            "of 'x' is [9, 4]; must be [8, 4]: batch_size, then",
        ),
        (2, [tensor("x", "FP32", X[:BATCH], shape=[-8, -4])], "batch.tensors[0].shape", "of 'x' is [-8, -4]; must be"),
        (2, [tensor("x", "FP32", X[:7], shape=[8, 4])], "batch.tensors[0].data", "has 112 bytes; FP32 of shape [8, 4]"),
        (2, [tensor("x", "FP32", NAN), GOOD_Y], "batch.tensors", "'x' has 1 elements that are NaN or infinite"),
        (
            2,
            [tensor("x", "FP64", X[:BATCH].astype(np.float64) * 1e300), GOOD_Y],
            "batch.tensors",
            "'x' has elements from",
        ),
        (2, [GOOD_X, tensor("y", "INT64", Y[:BATCH] + 5)], "batch.tensors", "'y': has classes from 6 to 7"),
        (
            2,
            [GOOD_X, tensor("y", "FP64", Y[:BATCH] + 0.5)],
            "batch.tensors",
            "'y': softmax cross-entropy needs a column",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_batch_that_cannot_be_taken_is_named_and_the_job_lives_on(
    patient: tuple[Service, str], step: int, tensors: Any, field: str, told: str
) -> None:
    service, name = patient
    with stream(service, name) as sending:
        assert sending.started().step == 1
        sending.send(batch(step, tensors=tensors))
        told_of = refusal(sending.answer)
    assert told_of.code == grpc.StatusCode.INVALID_ARGUMENT
    assert told_of.fields[field].startswith(told), told_of.fields


@pytest.fixture(scope="module")
def patient(shared: Service) -> tuple[Service, str]:
    """A job that has taken one step, and is sent wrong batches from then on."""
    job = create(shared)
    with stream(shared, job.name) as sending:
        sending.started()
        sending.send(batch(1))
        sending.answer()
    return shared, job.name


def test_answers_to_good_batches_come_before_the_refusal_of_a_bad_one(shared: Service) -> None:
    with stream(shared, create(shared).name) as sending:
        sending.started()
        sending.send(batch(1), batch(2), batch(5))
        assert [answer.step for answer in sending.answers(2)] == [1, 2]
        assert refusal(sending.answer).fields == {"batch.step": "is 5; the next batch is for step 3"}


def test_a_job_takes_its_epochs_and_no_more(shared: Service) -> None:
    with stream(shared, create(shared, epochs=1).name) as sending:
        sending.started()
        sending.send(*map(batch, range(1, 6)))
        sending.answers(4)
        told = refusal(sending.answer)
        assert told.fields == {"batch.step": "is beyond the job's 4 steps (1 epochs); finish it"}


def test_what_is_no_stream_of_batches_is_refused(shared: Service) -> None:
    with stream(shared, "jobs/nobody") as sending:
        assert refusal(sending.started).code == grpc.StatusCode.NOT_FOUND
    plain = shared.create()
    with stream(shared, plain.name) as sending:
        assert refusal(sending.started).reason == "JOB_NOT_ONLINE"
    with stream(shared, create(shared).name, after_step=-1) as sending:
        assert refusal(sending.started).fields == {"start.after_step": "is -1; must be 0 or more"}
    told = refusal(lambda: list(shared.training.TrainOnline(iter([batch(1)]), timeout=SECONDS)))
    assert told.fields == {"payload": "must begin with a start, which names the job"}
    with stream(shared, create(shared).name) as sending:
        sending.started()
        sending.send(FINISH)
        assert refusal(sending.answer).reason == "NO_STEP"


@pytest.mark.parametrize(
    ("changes", "field", "told"),
    [
        (
            {"data": {"dataset": "datasets/flowers", "online": {"input_shape": [4]}}},
            "data.dataset",
            "is of a dataset, and given beside online; leave it out",
        ),
        (
            {"data": {"validation_fraction": 0.2, "online": {"input_shape": [4]}}},
            "data.validation_fraction",
            "is 0.2; must be 0 beside online",
        ),
        ({"data": {"online": {"input_shape": [0]}}}, "data.online.input_shape", "is [0]; must have at most 8 axes"),
        ({"data": {"online": {"input_shape": [1] * 9}}}, "data.online.input_shape", "is [1, 1, 1, 1, 1, 1, 1, 1, 1];"),
        (
            {"data": {"online": {"input_shape": [4096, 4096]}}},
            "data.online.input_shape",
            "is [4096, 4096], 16,777,216 numbers a row; must be at most 4,194,304",
        ),
        (
            {"data": {"online": {"input_shape": [4], "steps_per_epoch": 0}}},
            "data.online.steps_per_epoch",
            "is 0; must be 1 to 10,000",
        ),
        ({"data": {"online": {"input_shape": [4], "target_shape": [2]}}}, "data.target_column", "'y': softmax cross"),
        ({"on_divergence": "ROLLBACK"}, "on_divergence", "is ROLLBACK, for which rows would have to come again"),
        ({"optimizer": {"accumulate": 2}}, "optimizer.accumulate", "is 2; must be 1 beside online"),
        ({"early_stopping": {"patience": 2}}, "early_stopping", "looks at held-out rows"),
    ],
    ids=str,
)
def test_a_job_that_cannot_be_is_named(shared: Service, changes: dict[str, Any], field: str, told: str) -> None:
    found = refusal(lambda: create(shared, **changes))
    assert found.code == grpc.StatusCode.INVALID_ARGUMENT
    assert found.fields[f"training_job.spec.{field}"].startswith(told), found.fields


def test_a_specification_comes_back_as_it_was_meant(shared: Service) -> None:
    spec = create(shared).spec
    assert list(spec.data.online.input_shape) == [4]
    assert spec.data.online.steps_per_epoch == STEPS
    assert (spec.data.input_column, spec.data.target_column, spec.data.dataset) == ("x", "y", "")
    assert spec.epochs == 1_000_000
    assert ONLINE["batch_size"] == spec.batch_size
