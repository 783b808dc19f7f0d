"""Uploads on their way: what has arrived stays, for a time and up to a size, and nobody writes over another."""

import hashlib
import os
import threading
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.data.uploads import MOST_PARTS, SILENT_SECONDS, Keeping, Upload, UploadKey, Uploads
from service.errors import Aborted, AlreadyExists, FailedPrecondition, InvalidArgument, ResourceExhausted, ServiceError

DATA = b"abcdefghij"
KEY = UploadKey("flowers", hashlib.sha256(DATA).hexdigest(), len(DATA))


class Time:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def uploads(tmp_path: Path, time: Time) -> Uploads:
    return Uploads(tmp_path, Keeping(most_bytes=100, seconds=60), time)


def files(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def leave(uploads: Uploads, root: Path, key: UploadKey, data: bytes, at: float) -> None:
    """An upload that broke off at some time."""
    with uploads.open(key) as upload:
        upload.write(0, data)
    os.utime(root / key.file_name, (at, at))


def test_what_has_arrived_stays(uploads: Uploads, tmp_path: Path, time: Time) -> None:
    assert uploads.committed(KEY) == 0
    with uploads.open(KEY) as upload:
        upload.write(0, DATA[:3])
    os.utime(tmp_path / KEY.file_name, (time.now, time.now))
    again = Uploads(tmp_path, Keeping(100, 60), time)
    assert again.committed(KEY) == 3
    with again.open(KEY) as upload:
        assert (upload.received, upload.complete) == (3, False)
        upload.write(3, DATA[3:])
        assert again.finish(upload, Path.read_bytes) == DATA
    assert files(tmp_path) == []
    assert again.committed(KEY) == 0


def test_a_stream_that_sent_nothing_leaves_nothing(uploads: Uploads, tmp_path: Path) -> None:
    with uploads.open(KEY):
        pass
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("parts", "field", "told"),
    [
        ([(1, b"a")], "chunk.offset", "is 1; the next byte wanted is 0"),
        ([(0, b"abc"), (0, b"abc")], "chunk.offset", "is 0; the next byte wanted is 3"),
        ([(0, b"abc"), (2, b"abc")], "chunk.offset", "is 2; the next byte wanted is 3"),
        ([(0, b"abc"), (4, b"abc")], "chunk.offset", "is 4; the next byte wanted is 3"),
        ([(-1, b"abc")], "chunk.offset", "is -1; the next byte wanted is 0"),
        ([(2**62, b"abc")], "chunk.offset", f"is {2**62:,}; the next byte wanted is 0"),
        ([(0, b"abc"), (3, b"d" * 8)], "chunk.data", "goes to byte 11; the header announced 10"),
    ],
)
def test_parts_come_in_order(parts: list[tuple[int, bytes]], field: str, told: str, uploads: Uploads) -> None:
    with uploads.open(KEY) as upload:
        for offset, data in parts[:-1]:
            upload.write(offset, data)
        with pytest.raises(InvalidArgument) as refused:
            upload.write(*parts[-1])
    assert [(v.field, v.description) for v in refused.value.violations] == [(field, told)]
    assert uploads.committed(KEY) == sum(len(data) for _, data in parts[:-1])


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10)), max_size=5))
def test_however_it_is_cut(streams: list[tuple[int, int]]) -> None:
    """Every stream begins somewhere in what has arrived, and breaks off somewhere; the last one brings the rest."""
    with TemporaryDirectory() as directory:
        uploads = Uploads(Path(directory))
        for first, last in streams:
            begin = min(first, uploads.committed(KEY))
            with uploads.open(KEY) as upload:
                upload.write(begin, DATA[begin : max(begin, last)])
            assert uploads.committed(KEY) == max(begin, last)
        with uploads.open(KEY) as upload:
            upload.write(upload.received, DATA[upload.received :])
            assert uploads.finish(upload, Path.read_bytes) == DATA


def test_it_must_be_what_was_announced(uploads: Uploads, tmp_path: Path) -> None:
    with uploads.open(KEY) as upload:
        upload.write(0, DATA[:3])
        with pytest.raises(InvalidArgument, match=r"header.size_bytes: is 10, but the upload ended after 3 bytes"):
            uploads.finish(upload, Path.read_bytes)
    assert uploads.committed(KEY) == 3
    wrong = replace(KEY, sha256="0" * 64)
    with uploads.open(wrong) as upload:
        upload.write(0, DATA)
        told = f"header.sha256: is {wrong.sha256}, but the bytes received have {KEY.sha256}"
        with pytest.raises(InvalidArgument, match=told):
            uploads.finish(upload, Path.read_bytes)
    assert files(tmp_path) == [KEY.file_name]


@pytest.mark.parametrize(
    ("error", "stays"),
    [
        (InvalidArgument.of("chunk", "is no dataset"), False),
        (AlreadyExists("taken", "DATASET_EXISTS"), False),
        (ResourceExhausted("no room", "NO_ROOM"), True),
        (FailedPrecondition("not installed", "FORMAT_NOT_INSTALLED"), True),
        (OSError(28, "disk full"), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_used_now_need_not_be_sent_again(
    error: Exception, stays: bool, uploads: Uploads, tmp_path: Path
) -> None:
    def make(_: Path) -> None:
        raise error

    with uploads.open(KEY) as upload:
        upload.write(0, DATA)
        with pytest.raises(type(error)):
            uploads.finish(upload, make)
    assert files(tmp_path) == ([KEY.file_name] if stays else [])
    with uploads.open(KEY) as upload:  # whether it stays or not, another stream may begin
        upload.write(0, DATA)
        assert uploads.finish(upload, Path.read_bytes) == DATA


def test_another_stream_of_the_same_upload_waits(uploads: Uploads, time: Time) -> None:
    with uploads.open(KEY) as first:
        first.write(0, DATA[:3])
        with pytest.raises(Aborted, match="another call is uploading this file as datasets/flowers"), uploads.open(KEY):
            pass
        with uploads.open(replace(KEY, sha256="0" * 64)), uploads.open(replace(KEY, dataset_id="trees")):
            pass  # other uploads don't
        time.now += SILENT_SECONDS
        with uploads.open(KEY) as second:  # the first one's client may be gone
            with pytest.raises(Aborted, match="another call goes on with this upload"):
                first.write(3, DATA[3:])
            with pytest.raises(Aborted):
                uploads.finish(first, Path.read_bytes)
            second.write(3, DATA[3:])
            assert uploads.finish(second, Path.read_bytes) == DATA


def test_while_a_dataset_is_made_nobody_interferes(uploads: Uploads, time: Time, tmp_path: Path) -> None:
    """Not even when its client goes away, nor after any time."""
    making, go_on = threading.Event(), threading.Event()
    made: list[bytes] = []

    def make(path: Path) -> bytes:
        making.set()
        assert go_on.wait(30)
        return path.read_bytes()

    with uploads.open(KEY) as upload:
        upload.write(0, DATA)
        thread = threading.Thread(target=lambda: made.append(uploads.finish(upload, make)))
        thread.start()
        assert making.wait(30)
    time.now += 1000
    with pytest.raises(Aborted), uploads.open(KEY):
        pass
    go_on.set()
    thread.join()
    assert (made, files(tmp_path)) == ([DATA], [])
    with uploads.open(KEY):
        pass


def test_a_client_gone_before_the_end_makes_nothing(uploads: Uploads) -> None:
    def never(_: Path) -> None:
        raise AssertionError

    with uploads.open(KEY) as upload:
        upload.write(0, DATA)
    with pytest.raises(Aborted):
        uploads.finish(upload, never)
    assert uploads.committed(KEY) == len(DATA)


def test_what_is_stale_is_swept(uploads: Uploads, tmp_path: Path, time: Time) -> None:
    leave(uploads, tmp_path, KEY, DATA[:3], time.now)
    leave(uploads, tmp_path, replace(KEY, dataset_id="trees"), DATA[:4], time.now + 30)
    time.now += 61
    with uploads.open(replace(KEY, dataset_id="bushes")):
        pass
    assert files(tmp_path) == [replace(KEY, dataset_id="trees").file_name]
    time.now += 30
    Uploads(tmp_path, Keeping(100, 60), time)
    assert files(tmp_path) == []


def test_the_oldest_make_room(uploads: Uploads, tmp_path: Path, time: Time) -> None:
    keys = [replace(KEY, dataset_id=f"old-{n}", size_bytes=30) for n in range(3)]
    for number, key in enumerate(keys):
        leave(uploads, tmp_path, key, bytes(30), time.now + number)
    with uploads.open(replace(KEY, size_bytes=40)):
        assert [uploads.committed(key) for key in keys] == [0, 30, 30]
        with uploads.open(replace(KEY, dataset_id="trees", size_bytes=60)):
            assert [uploads.committed(key) for key in keys] == [0, 0, 0]
            told = "the uploads under way have 101 bytes together; may have 100"
            with pytest.raises(ResourceExhausted, match=told), uploads.open(replace(KEY, dataset_id="x", size_bytes=1)):
                pass


def test_there_are_only_so_many(uploads: Uploads, tmp_path: Path, time: Time) -> None:
    for number in range(MOST_PARTS + 5):
        path = tmp_path / replace(KEY, dataset_id=f"n{number}").file_name
        path.touch()
        os.utime(path, (time.now, time.now + number / 1000))
    with uploads.open(KEY) as upload:
        assert isinstance(upload, Upload)
    assert len(files(tmp_path)) < MOST_PARTS
    assert replace(KEY, dataset_id="n0").file_name not in files(tmp_path)


def test_errors_are_the_services_own() -> None:
    assert issubclass(Aborted, ServiceError)
