"""Uploads that break off and go on: over real streams, also across restarts of the coordinator."""

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from chainrule import Client
from chainrule.v1 import dataset_service_pb2 as pb
from tests.api.running import FLOWERS, SECONDS, Service, X, Y, head, npz, part, parts, refusal, serving
from tests.unit.service.waiting import eventually

SUM, SIZE = hashlib.sha256(FLOWERS).hexdigest(), len(FLOWERS)
HALF = 1_000


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One for all tests here, each of which has a name of its own."""
    with serving(tmp_path_factory.mktemp("data")) as service:
        yield service


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """The test's own, for a dataset."""
    return f"d{abs(hash(request.node.name))}"


def query(service: Service, dataset_id: str, sha256: str = SUM, size: int = SIZE) -> pb.QueryUploadResponse:
    asked = pb.QueryUploadRequest(dataset_id=dataset_id, size_bytes=size, sha256=sha256)
    return service.datasets.QueryUpload(asked, timeout=SECONDS)


def unfinished(service: Service) -> list[str]:
    return sorted(path.name for path in Path(service.addresses["data_dir"], "uploads").iterdir())


def break_off(service: Service, dataset_id: str, upto: int = HALF) -> None:
    """A client that sends some and is gone."""
    with stalled(service, dataset_id, upto):
        pass
    nothing = [head(dataset_id, FLOWERS), pb.UploadDatasetRequest()]
    eventually(lambda: refusal(lambda: service.send(nothing)).code != grpc.StatusCode.ABORTED)


class stalled:  # noqa: N801 - it is used like a function
    """A client that has sent some and then sends nothing, until the context is left and it is gone."""

    def __init__(self, service: Service, dataset_id: str, upto: int) -> None:
        self._service, self._id, self._upto = service, dataset_id, upto
        self._hold, self._sent = threading.Event(), threading.Event()

    def _messages(self) -> Iterator[pb.UploadDatasetRequest]:
        yield head(self._id, FLOWERS)
        yield part(0, FLOWERS[: self._upto])
        self._sent.set()
        self._hold.wait(SECONDS)

    def __enter__(self) -> None:
        self._call = self._service.datasets.UploadDataset.future(self._messages(), timeout=SECONDS)
        assert self._sent.wait(SECONDS)
        eventually(lambda: query(self._service, self._id).committed_bytes == self._upto)

    def __exit__(self, *_: object) -> None:
        self._call.cancel()
        self._hold.set()


def test_an_upload_goes_on_where_it_broke_off(service: Service, name: str) -> None:
    assert query(service, name) == pb.QueryUploadResponse()
    break_off(service, name)
    assert query(service, name) == pb.QueryUploadResponse(committed_bytes=HALF)
    made = service.send([head(name, FLOWERS), *(part(at, FLOWERS[at : at + 500]) for at in range(HALF, SIZE, 500))])
    assert (made.rows, made.sha256) == (len(X), SUM)
    assert query(service, name) == pb.QueryUploadResponse(committed_bytes=SIZE, complete=True)
    assert not any(file.startswith(name) for file in unfinished(service))


def test_it_may_begin_again_anywhere_before(service: Service, name: str) -> None:
    break_off(service, name)
    found = refusal(lambda: service.send([head(name, FLOWERS), part(HALF + 1, b"x")]))
    assert found.fields == {"chunk.offset": f"is {HALF + 1:,}; the next byte wanted is {HALF:,}"}
    made = service.send([head(name, FLOWERS), part(700, FLOWERS[700:])])
    assert made.sha256 == SUM
    break_off(service, f"{name}-too")
    assert service.upload(f"{name}-too", FLOWERS).sha256 == SUM


def test_a_stream_that_ends_early_keeps_what_it_sent(service: Service, name: str) -> None:
    found = refusal(lambda: service.send([head(name, FLOWERS), part(0, FLOWERS[:HALF])]))
    assert found.code == grpc.StatusCode.INVALID_ARGUMENT
    assert found.fields["header.size_bytes"].startswith(f"is {SIZE:,}, but the upload ended after {HALF:,} bytes")
    assert query(service, name).committed_bytes == HALF


def test_an_upload_survives_the_coordinator(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        break_off(service, "trees")
    with serving(tmp_path) as service:
        assert query(service, "trees").committed_bytes == HALF
        assert service.send([head("trees", FLOWERS), part(HALF, FLOWERS[HALF:])]).sha256 == SUM


def test_wrong_bytes_are_found_at_the_end_and_thrown_away(service: Service, name: str) -> None:
    break_off(service, name)
    wrong = bytes(SIZE - HALF)
    found = refusal(lambda: service.send([head(name, FLOWERS), part(HALF, wrong)]))
    assert found.fields["header.sha256"].startswith(f"is {SUM}, but the bytes received have ")
    assert query(service, name) == pb.QueryUploadResponse()


def test_repeating_a_finished_upload_returns_the_dataset(service: Service, name: str) -> None:
    made = service.upload(name, FLOWERS)
    assert service.upload(name, FLOWERS) == made
    assert service.upload(name, FLOWERS, format=0) == made
    assert service.send([head(name, FLOWERS)]) == made
    for call in (
        lambda: service.upload(name, npz(x=X)),
        lambda: service.upload(name, FLOWERS, format=pb.Dataset.CSV),
        lambda: query(service, name, "0" * 64),
    ):
        found = refusal(call)
        assert (found.code, found.reason) == (grpc.StatusCode.ALREADY_EXISTS, "DATASET_EXISTS")


def test_an_upload_at_work_is_left_alone(service: Service, name: str) -> None:
    with stalled(service, name, HALF):
        found = refusal(lambda: service.upload(name, FLOWERS))
        assert (found.code, found.reason) == (grpc.StatusCode.ABORTED, "UPLOAD_IN_PROGRESS")
        assert found.message == f"another call is uploading this file as datasets/{name}; try again in a few seconds"
        # Another file under the same name is another upload: whichever is finished first gets the name.
        other = npz(x=X, y=Y, z=X)
        assert service.upload(name, other).sha256 == hashlib.sha256(other).hexdigest()


def test_what_an_upload_is_known_by_is_checked(shared: Service) -> None:
    found = refusal(lambda: query(shared, "../x"))
    assert list(found.fields) == ["dataset_id"]
    found = refusal(lambda: query(shared, "x", "../../etc", -1))
    assert list(found.fields) == ["size_bytes", "sha256"]


def test_a_full_service_keeps_what_was_sent(tmp_path: Path) -> None:
    """Until there is room, so that it need not be sent again."""
    csv = ("a,b\n" + "1,2\n" * 20).encode()  # twice as large in 64 bits
    with serving(tmp_path, total_dataset_bytes=200) as service:
        found = refusal(lambda: service.upload("trees", csv, format=0))
        assert (found.code, found.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "NO_ROOM_FOR_DATASETS")
        assert found.message.startswith("the dataset has 320 bytes; 0 of the 200 that all datasets together may have")
        assert query(service, "trees", hashlib.sha256(csv).hexdigest(), len(csv)).committed_bytes == len(csv)
        found = refusal(lambda: service.upload("bushes", FLOWERS))
        assert (found.code, found.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "NO_ROOM_FOR_DATASETS")
    with serving(tmp_path) as service:
        made = service.send([head("trees", csv, format=0)])
        assert (made.rows, made.format, made.stored_bytes) == (20, pb.Dataset.CSV, 320)


def test_the_client_goes_on_by_itself(tmp_path: Path) -> None:
    """The coordinator is stopped while a client sends, and started again at the same address."""
    data = npz(x=np.arange(1_000_000.0))
    going, back = threading.Event(), threading.Event()
    sent: list[int] = []

    def progress(offset: int, _total: int) -> None:
        sent.append(offset)
        if len(sent) == 3:
            going.set()
            assert back.wait(SECONDS)

    made: list[pb.Dataset] = []
    with serving(tmp_path) as service:
        address = service.addresses["grpc"]
        client = Client(address)
        thread = threading.Thread(target=lambda: made.append(client.upload_dataset(data, "numbers", progress)))
        thread.start()
        assert going.wait(SECONDS)
        eventually(lambda: unfinished(service) != [])
    back.set()
    with serving(tmp_path, listen=address):
        thread.join(SECONDS)
        assert [dataset.sha256 for dataset in made] == [hashlib.sha256(data).hexdigest()]
    client.close()


def test_one_client_waits_for_another_with_the_same_file(service: Service, name: str) -> None:
    made: list[pb.Dataset] = []
    with Client(service.addresses["grpc"]) as client:
        with stalled(service, name, HALF):
            thread = threading.Thread(target=lambda: made.append(client.upload_dataset(FLOWERS, name)))
            thread.start()
        thread.join(SECONDS)
    assert [dataset.sha256 for dataset in made] == [SUM]


@pytest.mark.parametrize("size", [0, 1, SIZE - 1, SIZE])
def test_wherever_it_broke_off(service: Service, size: int) -> None:
    name = f"broken-at-{size}"
    if size:
        refusal(lambda: service.send([head(name, FLOWERS), *parts(FLOWERS[:size]), pb.UploadDatasetRequest()]))
    assert query(service, name).committed_bytes == size
    rest = [part(size, FLOWERS[size:])] if size < SIZE else []
    assert service.send([head(name, FLOWERS), *rest]).sha256 == SUM
