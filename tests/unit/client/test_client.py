"""The client against a real gRPC server with fake servicers."""

import hashlib
import socket
import threading
import time
from itertools import islice
from pathlib import Path

import grpc
import pytest

from chainrule import (
    AlreadyExists,
    Client,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    TransferError,
    Unavailable,
    Violation,
)
from chainrule.v1.training_event_pb2 import TrainingEvent
from chainrule.v1.training_job_pb2 import TrainingJob, TrainingJobSpec, TrainingProgress
from tests.unit.client.fakes import MODEL_FILE, FakeService, FakeTraining, serving


def numbers(updates: list[TrainingEvent | TrainingProgress]) -> list[int]:
    return [update.number for update in updates if isinstance(update, TrainingEvent)]


def test_a_job_is_created_once_for_each_call(client: Client, service: FakeService) -> None:
    job = client.create_job(TrainingJobSpec(epochs=3))
    client.create_job(TrainingJob(display_name="mine"), request_id="again")
    assert (job.name, job.spec.epochs) == ("jobs/j1", 3)
    first, second = service.training.created
    assert len(first.request_id) == 36
    assert second.request_id == "again"
    assert second.training_job.display_name == "mine"


def test_validating_creates_nothing(client: Client, service: FakeService) -> None:
    client.create_job(TrainingJobSpec(), validate_only=True)
    assert service.training.jobs == {}


def test_names_are_taken_bare_or_in_full(client: Client) -> None:
    client.create_job(TrainingJobSpec())
    assert client.get_job("j1") == client.get_job("jobs/j1")
    assert client.get_model("m1") == client.get_model("models/m1")


def test_pages_are_joined(client: Client) -> None:
    for _ in range(5):
        client.create_job(TrainingJobSpec())
    for name in ("a", "b", "c"):
        client.upload_dataset(b"npz", name)
    assert [job.name for job in client.jobs()] == [f"jobs/j{n}" for n in range(1, 6)]
    assert [dataset.name for dataset in client.datasets()] == ["datasets/a", "datasets/b", "datasets/c"]
    assert [model.name for model in client.models()] == ["models/m1", "models/m2", "models/m3"]


def test_what_is_deleted_is_gone(client: Client) -> None:
    client.create_job(TrainingJobSpec())
    client.upload_dataset(b"npz", "a")
    client.delete_job("j1")
    client.delete_dataset("a")
    assert [*client.jobs(), *client.datasets()] == []


def test_a_refused_request_names_the_fields(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="2 fields are wrong") as refused:
        client.create_job(TrainingJobSpec(epochs=666))
    assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.reason == "INVALID_JOB"
    assert refused.value.violations == (
        Violation("training_job.spec.epochs", "must be 1 to 665"),
        Violation("training_job.spec.shards", "must be above 0"),
    )


def test_status_codes_become_exceptions(client: Client) -> None:
    client.create_job(TrainingJobSpec())
    assert client.pause_job("j1").state == TrainingJob.PAUSED
    with pytest.raises(FailedPrecondition):
        client.pause_job("j1")
    assert client.resume_job("j1").state == TrainingJob.QUEUED
    client.cancel_job("j1")
    client.upload_dataset(b"npz", "a")
    with pytest.raises(FailedPrecondition, match="jobs/j1 has ended"):
        client.cancel_job("j1")
    with pytest.raises(AlreadyExists, match="datasets/a exists"):
        client.upload_dataset(b"npz", "a")
    with pytest.raises(NotFound, match="there is no jobs/x"):
        list(client.watch("x"))


def test_nobody_at_the_address() -> None:
    with socket.socket() as taken:  # bound but not listening: nobody else can take the port meanwhile
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with Client(address) as client:
            with pytest.raises(
                Unavailable, match=f"^no coordinator answers at {address}; start one with `chainrule serve`$"
            ):
                client.get_job("x")
            with pytest.raises(Unavailable):
                list(client.watch("x", patience=0.2))
            with pytest.raises(Unavailable):
                client.upload_dataset(b"npz", "a")


def test_nobody_answers_in_time() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as mute,
        Client(f"127.0.0.1:{mute.getsockname()[1]}", timeout=0.2) as client,
        pytest.raises(DeadlineExceeded, match="did not answer in time"),
    ):
        client.get_job("x")


def test_a_watch_tells_everything_once(client: Client) -> None:
    client.create_job(TrainingJobSpec())
    updates = list(client.watch("j1"))
    assert numbers(updates) == [1, 2, 3, 4, 5]
    assert sum(isinstance(update, TrainingProgress) for update in updates) == 5


def test_a_watch_begins_after_an_event(client: Client, service: FakeService) -> None:
    client.create_job(TrainingJobSpec())
    assert numbers(list(client.watch("j1", after_event=3))) == [4, 5]
    assert service.training.watched_after == [3]


# Two messages for each event, so an odd number breaks the stream between an event and its progress.
@pytest.mark.parametrize("drops", [[0], [1], [2], [3], [9], [10], [0, 1, 0, 3, 2]])
def test_a_broken_watch_goes_on_where_it_was(client: Client, service: FakeService, drops: list[int]) -> None:
    service.training.drops = list(drops)
    client.create_job(TrainingJobSpec())
    assert numbers(list(client.watch("j1"))) == [1, 2, 3, 4, 5]
    assert service.training.drops == []


def test_a_watch_outlives_the_service() -> None:
    training, done = FakeTraining(endless=True), threading.Event()

    def restart() -> None:
        time.sleep(0.5)  # long enough for the watch to meet with a refused connection or two
        with serving(FakeService(training), before.address):
            done.wait(timeout=30)

    thread = threading.Thread(target=restart)
    with serving(FakeService(training)) as before:
        client = Client(before.address)
        client.create_job(TrainingJobSpec())
        updates = client.watch("j1")
        seen = list(islice(updates, 10))
    training.endless = False
    thread.start()
    with client:
        seen += updates
    done.set()
    thread.join()
    assert numbers(seen) == [1, 2, 3, 4, 5]


def test_a_watch_may_be_left(client: Client, service: FakeService) -> None:
    service.training.endless = True
    client.create_job(TrainingJobSpec())
    updates = client.watch("j1")
    assert len(list(islice(updates, 20))) == 20
    updates.close()  # type: ignore[attr-defined]


def test_waiting_returns_the_ended_job(client: Client) -> None:
    assert client.wait(client.create_job(TrainingJobSpec()).name).result.model == "models/m1"
    assert client.wait("j1").state == TrainingJob.SUCCEEDED


def test_an_upload_is_cut_into_chunks(client: Client, service: FakeService, tmp_path: Path) -> None:
    data = bytes(2_500_000)
    (tmp_path / "data.npz").write_bytes(data)
    calls: list[tuple[int, int]] = []
    dataset = client.upload_dataset(tmp_path / "data.npz", "datasets/a", lambda *call: calls.append(call))
    assert dataset.sha256 == hashlib.sha256(data).hexdigest()
    assert service.datasets.files == {"datasets/a": data}
    assert service.datasets.chunks == [1_048_576, 1_048_576, 402_848]
    assert calls == [(1_048_576, 2_500_000), (2_097_152, 2_500_000), (2_500_000, 2_500_000)]


def test_an_upload_of_bytes(client: Client, service: FakeService) -> None:
    client.upload_dataset(b"npz", "a")
    assert service.datasets.files == {"datasets/a": b"npz"}


def test_an_upload_raises_what_went_wrong_here(client: Client, service: FakeService, tmp_path: Path) -> None:
    def fail(_sent: int, _total: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(FileNotFoundError):
        client.upload_dataset(tmp_path / "none.npz", "a")
    with pytest.raises(ZeroDivisionError):
        client.upload_dataset(bytes(2_500_000), "a", fail)  # a short one may be there whole before this is noticed
    assert service.datasets.files == {}


def test_a_model_is_uploaded(client: Client, service: FakeService, tmp_path: Path) -> None:
    data = bytes(2_500_000)
    (tmp_path / "model.safetensors").write_bytes(data)
    calls: list[tuple[int, int]] = []

    def fail(_sent: int, _total: int) -> None:
        raise ZeroDivisionError

    model = client.upload_model(tmp_path / "model.safetensors", "models/own", progress=lambda *c: calls.append(c))
    assert model.name == "models/own"
    assert service.models.uploads["models/own"][1] == data
    assert calls == [(1_048_576, 2_500_000), (2_097_152, 2_500_000), (2_500_000, 2_500_000)]
    with pytest.raises(AlreadyExists):
        client.upload_model(b"model", "own")
    with pytest.raises(FileNotFoundError):
        client.upload_model(tmp_path / "none", "other")
    with pytest.raises(ZeroDivisionError):
        client.upload_model(b"model", "other", progress=fail)
    client.delete_model("own")
    with pytest.raises(NotFound):
        client.delete_model("own")


@pytest.mark.parametrize("target", ["model.safetensors", "new/model.safetensors", "."])
def test_a_download_is_complete(client: Client, tmp_path: Path, target: str) -> None:
    path = client.download_model("m1", tmp_path / target)
    assert path == (tmp_path / "m1.safetensors" if target == "." else tmp_path / target)
    assert path.read_bytes() == MODEL_FILE
    assert [found for found in tmp_path.rglob("*") if found.is_file()] == [path]


@pytest.mark.parametrize("sent", [MODEL_FILE[:-1], MODEL_FILE + b"x", MODEL_FILE[:-1] + b"x", b""])
def test_another_file_than_announced_is_refused(
    client: Client, service: FakeService, tmp_path: Path, sent: bytes
) -> None:
    service.models.sent = sent
    (tmp_path / "m1.safetensors").write_bytes(b"the one before")
    with pytest.raises(TransferError, match=r"models/m1: .*; try again"):
        client.download_model("m1", tmp_path)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"the one before"]
