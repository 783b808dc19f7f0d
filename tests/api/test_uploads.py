"""Uploads: whole and as announced, or refused with a reason; what is refused leaves nothing, on the disk neither."""

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import grpc
import numpy as np
import pytest

from chainrule.v1 import dataset_service_pb2 as pb
from tests.api.running import (
    FLOWERS,
    ROWS,
    SECONDS,
    Refusal,
    Service,
    X,
    Y,
    head,
    npz,
    part,
    parts,
    refusal,
    refused,
)
from tests.unit.service.hostile import HOSTILE
from tests.unit.service.hostile import npz as compressed_npz
from tests.unit.service.unreliable import GatedCluster
from tests.unit.service.waiting import eventually

Messages = Sequence[pb.UploadDatasetRequest]

INVALID, EXHAUSTED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED
EXISTS, NOT_NOW = grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.FAILED_PRECONDITION
SUM = hashlib.sha256(FLOWERS).hexdigest()
SIZE = len(FLOWERS)
ID = "must have 1 to 63 lower-case letters, digits and hyphens, and begin with a letter"


def get(service: Service, name: str) -> pb.Dataset:
    return service.datasets.GetDataset(pb.GetDatasetRequest(name=name), timeout=SECONDS)


def delete(service: Service, name: str) -> None:
    service.datasets.DeleteDataset(pb.DeleteDatasetRequest(name=name), timeout=SECONDS)


def files(service: Service) -> list[str]:
    root = Path(service.addresses["data_dir"]) / "datasets"
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


def test_a_dataset(shared: Service) -> None:
    found = get(shared, "datasets/flowers")
    assert (found.name, found.rows, found.size_bytes, found.sha256) == ("datasets/flowers", ROWS, SIZE, SUM)
    x, y = found.columns
    assert (x.name, x.dtype, list(x.row_shape), x.nonfinite_count) == ("x", "float32", [4], 0)
    assert (x.min, x.max) == (float(X.min()), float(X.max()))
    assert (y.name, y.dtype, list(y.row_shape), y.min, y.max) == ("y", "int64", [], 0, 2)
    assert found.create_time.seconds > 0


WRONG: dict[str, tuple[Callable[[], Messages], grpc.StatusCode, str, str, str]] = {
    "nothing": (list, INVALID, "INVALID_FIELD", "payload", "must begin with a header"),
    "no header": (lambda: parts(FLOWERS), INVALID, "INVALID_FIELD", "payload", "must begin with a header"),
    "an empty message": (lambda: [pb.UploadDatasetRequest()], INVALID, "INVALID_FIELD", "payload", "must begin with a"),
    "two headers": (
        lambda: [head("trees", FLOWERS)] * 2,
        INVALID,
        "INVALID_FIELD",
        "payload",
        "must be a chunk; the header comes once, and first",
    ),
    "an empty message among chunks": (
        lambda: [head("empty", FLOWERS), pb.UploadDatasetRequest(), *parts(FLOWERS)],
        INVALID,
        "INVALID_FIELD",
        "payload",
        "must be a chunk",
    ),
    **{
        f"the name {name!r}": (
            lambda name=name: [head(name, FLOWERS), *parts(FLOWERS)],  # type: ignore[misc]
            INVALID,
            "INVALID_FIELD",
            "header.dataset_id",
            f"is {name!r}; {ID}",
        )
        for name in ("", "../x", "a/b", "/etc", "A", "1a", ".hidden", "a" * 64, "a b", "\N{SNOWMAN}")
    },
    "a format that is none": (
        lambda: [head("trees", FLOWERS, format=9)],
        INVALID,
        "INVALID_FIELD",
        "header.format",
        "is 9; must be NPZ, CSV, IDX, PARQUET, ARROW, or unset to find it out",
    ),
    "a group without a name": (
        lambda: [head("trees", FLOWERS, groups=[pb.ColumnGroup(columns=["a"])])],
        INVALID,
        "INVALID_FIELD",
        "header.groups[0].name",
        "is ''; must have 1 to 100 printable characters",
    ),
    "a group of nothing": (
        lambda: [head("trees", FLOWERS, groups=[pb.ColumnGroup(name="x")])],
        INVALID,
        "INVALID_FIELD",
        "header.groups[0].columns",
        "has 0 names; must have 1 to 50,000",
    ),
    "two groups of a name": (
        lambda: [head("trees", FLOWERS, groups=[pb.ColumnGroup(name="x", columns=[name]) for name in "ab"])],
        INVALID,
        "INVALID_FIELD",
        "header.groups[1].name",
        "is 'x', as another group's is; give each a name of its own",
    ),
    "a column in two groups": (
        lambda: [head("trees", FLOWERS, groups=[pb.ColumnGroup(name=name, columns=["a"]) for name in "xy"])],
        INVALID,
        "INVALID_FIELD",
        "header.groups[1].columns",
        "names 'a' again; a column goes into one place",
    ),
    "groups of what is no table": (
        lambda: [head("grouped", FLOWERS, groups=[pb.ColumnGroup(name="z", columns=["x"])]), *parts(FLOWERS)],
        INVALID,
        "BAD_DATASET",
        "chunk",
        "has arrays that are columns already, so that group 'z' can gather nothing",
    ),
    "no size": (
        lambda: [head("trees", FLOWERS, size_bytes=0)],
        INVALID,
        "INVALID_FIELD",
        "header.size_bytes",
        "is 0; must be the file's size, above 0",
    ),
    "a negative size": (
        lambda: [head("trees", FLOWERS, size_bytes=-5)],
        INVALID,
        "INVALID_FIELD",
        "header.size_bytes",
        "is -5; must be the file's size, above 0",
    ),
    "no sum": (
        lambda: [head("trees", FLOWERS, sha256="")],
        INVALID,
        "INVALID_FIELD",
        "header.sha256",
        "must be the file's SHA-256: 64 hexadecimal digits",
    ),
    "a sum that is none": (
        lambda: [head("trees", FLOWERS, sha256="g" * 64)],
        INVALID,
        "INVALID_FIELD",
        "header.sha256",
        "must be the file's SHA-256: 64 hexadecimal digits",
    ),
    "a wrong sum": (
        lambda: [head("wrong-sum", FLOWERS, sha256="0" * 64), *parts(FLOWERS)],
        INVALID,
        "INVALID_FIELD",
        "header.sha256",
        f"is {'0' * 64}, but the bytes received have {SUM}",
    ),
    "too large": (
        lambda: [head("trees", FLOWERS, size_bytes=50_001)],
        EXHAUSTED,
        "DATASET_TOO_LARGE",
        "",
        "the file has 50,001 bytes; a dataset may have 50,000",
    ),
    "too short": (
        lambda: [head("short", FLOWERS), *parts(FLOWERS)[:-1]],
        INVALID,
        "INVALID_FIELD",
        "header.size_bytes",
        f"is {SIZE:,}, but the upload ended after {SIZE // 500 * 500:,} bytes",
    ),
    "too long": (
        lambda: [head("long", FLOWERS), *parts(FLOWERS), part(SIZE, b"more")],
        INVALID,
        "INVALID_FIELD",
        "chunk.data",
        f"goes to byte {SIZE + 4:,}; the header announced {SIZE:,}",
    ),
    "a gap": (
        lambda: [head("gap", FLOWERS), part(1, b"a")],
        INVALID,
        "INVALID_FIELD",
        "chunk.offset",
        "is 1; the next byte wanted is 0",
    ),
    "an overlap": (
        lambda: [head("overlap", FLOWERS), part(0, b"abc"), part(2, b"abc")],
        INVALID,
        "INVALID_FIELD",
        "chunk.offset",
        "is 2; the next byte wanted is 3",
    ),
    "a negative offset": (
        lambda: [head("negative", FLOWERS), part(-1, b"abc")],
        INVALID,
        "INVALID_FIELD",
        "chunk.offset",
        "is -1; the next byte wanted is 0",
    ),
    "a name that is taken": (
        lambda: [head("flowers", other := npz(x=X)), *parts(other)],
        EXISTS,
        "DATASET_EXISTS",
        "",
        "there is a dataset datasets/flowers already, with other content, and datasets never change; choose another",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_refused(name: str, shared: Service) -> None:
    messages, code, reason, field, told = WRONG[name]
    before = shared.everything(), files(shared)
    found = refusal(lambda: shared.send(messages()))
    assert (found.code, found.reason, found.domain) == (code, reason, "chainrule")
    assert list(found.fields) == ([field] if field else [])
    assert (found.fields[field] if field else found.message).startswith(told)
    assert (shared.everything(), files(shared)) == before


SMALL = {name: data for name, (make, _) in HOSTILE.items() if 0 < len(data := make()) < 50_000}


@pytest.mark.parametrize("name", SMALL)
def test_a_hostile_file(name: str, shared: Service) -> None:
    """Among them pickles, truncated ones and bombs; what is said of each, the reader's own tests know."""
    before = shared.everything(), files(shared)
    found = refusal(lambda: shared.upload("trees", SMALL[name]))
    assert (found.code, found.reason, list(found.fields)) == (INVALID, "BAD_DATASET", ["chunk"])
    assert (shared.everything(), files(shared)) == before


def test_a_bomb_in_an_upload_of_the_size_allowed(shared: Service) -> None:
    bomb = compressed_npz(True, x=np.zeros(10**6))
    assert len(bomb) < 50_000
    found = refusal(lambda: shared.upload("trees", bomb))
    assert found.fields["chunk"] == "unpacks to 8,000,128 bytes; must be at most 50,000"


def test_all_wrong_fields_of_a_header_at_once(shared: Service) -> None:
    found = refusal(lambda: shared.send([head("trees", b"", format=0, size_bytes=-1, sha256="x")]))
    assert list(found.fields) == ["header.size_bytes", "header.sha256"]


def test_an_upload_that_breaks_off_leaves_no_dataset(shared: Service) -> None:
    before = shared.everything(), files(shared)
    hold, sent = threading.Event(), threading.Event()

    def messages() -> Iterator[pb.UploadDatasetRequest]:
        yield head("broken-off", FLOWERS)
        yield part(0, FLOWERS[:100])
        sent.set()
        hold.wait(SECONDS)

    call = shared.datasets.UploadDataset.future(messages(), timeout=SECONDS)
    assert sent.wait(SECONDS)
    call.cancel()
    hold.set()
    eventually(lambda: (shared.everything(), files(shared)) == before)


def test_two_uploads_of_a_name_at_once(service: Service) -> None:
    answers: list[Refusal | pb.Dataset] = []

    def upload(rows: int) -> None:
        data = npz(x=X[:rows], y=Y[:rows])
        try:
            answers.append(service.upload("trees", data))
        except grpc.RpcError as error:
            answers.append(refused(error))

    threads = [threading.Thread(target=upload, args=(rows,)) for rows in range(3, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    (made,) = [answer for answer in answers if isinstance(answer, pb.Dataset)]
    others = [answer for answer in answers if isinstance(answer, Refusal)]
    assert len(others) == 7
    assert {(other.code, other.reason) for other in others} == {(EXISTS, "DATASET_EXISTS")}
    assert get(service, "datasets/trees") == made


def test_deleting(service: Service) -> None:
    service.upload("trees", FLOWERS)
    delete(service, "datasets/trees")
    assert not any("trees" in name for name in files(service))
    for call in (get, delete):
        found = refusal(lambda call=call: call(service, "datasets/trees"))  # type: ignore[misc]
        assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "DATASET_NOT_FOUND")
        found = refusal(lambda call=call: call(service, "datasets/../trees"))  # type: ignore[misc]
        assert (found.code, list(found.fields)) == (INVALID, ["name"])


def test_a_dataset_in_use_stays(gated: Service, cluster: GatedCluster) -> None:
    name = gated.create().name
    before = gated.everything()
    found = refusal(lambda: delete(gated, "datasets/flowers"))
    assert (found.code, found.reason) == (NOT_NOW, "DATASET_IN_USE")
    assert found.message == f"datasets/flowers is used by {name}; cancel that first, or wait for its end"
    assert gated.everything()[1:] == before[1:]
    cluster.gate.set()
    gated.end(name)
    delete(gated, "datasets/flowers")
