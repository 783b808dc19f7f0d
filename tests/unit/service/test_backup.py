"""Backups: whole or not there at all, and whatever is damaged is found."""

import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from service.backup.making import UNFINISHED, back_up
from service.backup.manifest import BackupError, read_manifest
from service.backup.restoring import restore
from service.backup.verifying import verify
from service.data.datasets import Content, Datasets
from service.directory import RESTORING, DirectoryUnusable, check_whole, locked
from service.jobs.events import Cancelled, Queued, StateChanged
from service.jobs.store import JobStore, Record
from service.models.registry import Models
from service.training.checkpoints import Checkpoints
from service.wire.job import spec_text
from tests.unit.service.examples import NOON, job
from tests.unit.service.full_disk import largest_file
from worker.layers import Dense
from worker.network import Network


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with one of each."""
    directory = tmp_path / "data"
    directory.mkdir()
    with closing(JobStore(directory / "jobs.sqlite", spec_text())) as store:
        store.create(job(), "", Record(1, NOON, StateChanged(Queued())))
    file = tmp_path / "file.npz"
    np.savez(file, x=np.arange(2000.0), y=np.arange(2000))
    Datasets(directory / "datasets", 1 << 20).add(job().spec.dataset, Content.of(file), file)
    network = Network((Dense(3),), (4,))
    params = np.zeros(network.size, np.float32)
    Models(directory / "models").add("made", network, "[]", params, (None, None, {}), datetime.now(UTC))
    Checkpoints(directory / "checkpoints" / job().id).save_initial({"weight": params})
    (directory / "aliases.json").write_text('{"production": "made"}')
    (directory / "audit.log").write_text("{}\n" * 30_000)
    (directory / "instance").write_text("0123456789abcdef")
    return directory


def files(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def test_what_comes_back_is_what_there_was(data: Path, tmp_path: Path) -> None:
    made = back_up(data, tmp_path / "backup")
    assert verify(data).problems == verify(tmp_path / "backup").problems == []
    restore(tmp_path / "backup", tmp_path / "again")
    before, after = files(data), files(tmp_path / "again")
    # Another directory is another instance: of shared memory, each has its own.
    left = {name for name in before.keys() - after.keys() if not name.startswith("jobs.sqlite-")}
    assert left == {"instance"}
    assert after.keys() - before.keys() == {"lock"}
    assert {name for name in after if name in before and before[name] != after[name]} <= {"jobs.sqlite"}
    with closing(JobStore(tmp_path / "again" / "jobs.sqlite", spec_text())) as store:
        assert list(store.load()) == [job()]
    assert made.size_bytes == sum(len(content) for name, content in after.items() if name != "lock")
    assert verify(tmp_path / "again").counted == verify(data).counted


def test_a_backup_is_never_written_over(data: Path, tmp_path: Path) -> None:
    back_up(data, tmp_path / "backup")
    before = files(tmp_path / "backup")
    with pytest.raises(BackupError, match="is there already"):
        back_up(data, tmp_path / "backup")
    assert files(tmp_path / "backup") == before
    with pytest.raises(BackupError, match=r"is no data directory: it has no jobs\.sqlite"):
        back_up(tmp_path / "elsewhere", tmp_path / "another")


def test_later_changes_don_t_reach_a_backup(data: Path, tmp_path: Path) -> None:
    back_up(data, tmp_path / "backup")
    before = files(tmp_path / "backup")
    with closing(JobStore(data / "jobs.sqlite", spec_text())) as store:
        store.delete(job().id)
    with (data / "audit.log").open("a") as log:
        log.write("{}\n")
    (data / "aliases.json").write_text("{}")
    (column,) = (data / "datasets").glob("*/0.npy")
    column.write_bytes(b"written over")
    Models(data / "models").delete("made")
    assert files(tmp_path / "backup") == before
    assert not verify(tmp_path / "backup").problems


DAMAGES: dict[str, tuple[str, Callable[[bytes], bytes | None]]] = {
    "a column with one bit that is another": ("datasets/*/0.npy", lambda data: data[:-1] + bytes([data[-1] ^ 1])),
    "a column that is gone": ("datasets/*/1.npy", lambda _: None),
    "a description that is cut off": ("datasets/*/dataset.json", lambda data: data[:40]),
    "a model with one byte more": ("models/made/model.safetensors", lambda data: data + b" "),
    "a model without description": ("models/made/model.json", lambda _: None),
    "a description that is none": ("models/made/model.json", lambda _: b"[]"),
    "a checkpoint with one bit that is another": ("checkpoints/*/*", lambda data: bytes([data[0] ^ 1]) + data[1:]),
    "aliases that are none": ("aliases.json", lambda _: b'["production"]'),
    "jobs that are none": ("jobs.sqlite", lambda data: bytes(len(data))),
    "jobs with a page that is another": ("jobs.sqlite", lambda data: data[:4096] + bytes(4096) + data[8192:]),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("of", ["data", "backup"])
def test_damage_is_found_and_named(damage: str, of: str, data: Path, tmp_path: Path) -> None:
    if of == "backup":
        back_up(data, tmp_path / "backup")
    pattern, change = DAMAGES[damage]
    (path,) = (tmp_path / of).glob(pattern)
    changed = change(path.read_bytes())
    path.unlink()
    if changed is not None:
        path.write_bytes(changed)
    problems = verify(tmp_path / of).problems
    assert problems
    assert any(path.name in problem or path.parent.name in problem for problem in problems), problems
    if of == "backup":
        with pytest.raises(BackupError, match=f"{path.name} is (damaged|missing)"):
            restore(tmp_path / "backup", tmp_path / "again")
        assert {left.name for left in (tmp_path / "again").iterdir()} == {"lock"}


def test_what_an_unfinished_job_needs_is_missed(data: Path) -> None:
    shutil.rmtree(data / "datasets" / job().spec.dataset)
    (problem,) = verify(data).problems
    assert problem == f"{job().name} hasn't ended, and its dataset, datasets/{job().spec.dataset}, is missing"
    with closing(JobStore(data / "jobs.sqlite", spec_text())) as store:
        store.append(job().id, Record(2, NOON, StateChanged(Cancelled())))
    assert not verify(data).problems


@pytest.mark.parametrize("path", ["../evil", "/tmp/evil", "a/../../evil", ".restoring/a", "a//b", ""])  # noqa: S108
def test_a_manifest_that_names_other_places_is_refused(path: str, data: Path, tmp_path: Path) -> None:
    back_up(data, tmp_path / "backup")
    manifest = tmp_path / "backup" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["files"][path] = content["files"]["audit.log"]
    manifest.write_text(json.dumps(content))
    for call in (lambda: restore(tmp_path / "backup", tmp_path / "again"), lambda: verify(tmp_path / "backup")):
        with pytest.raises(BackupError, match="names a file that no backup has"):
            call()


@pytest.mark.parametrize(
    "text", ["", "{}", '{"made": 5}', '{"made": "2026-01-01T00:00:00Z", "chainrule": "", "files": {}}']
)
def test_what_is_no_manifest_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(BackupError, match=r"manifest\.json (can't be read|lacks jobs\.sqlite)"):
        read_manifest(tmp_path)


def test_a_link_in_a_backup_is_not_followed(data: Path, tmp_path: Path) -> None:
    back_up(data, tmp_path / "backup")
    secret = tmp_path / "secret"
    (tmp_path / "backup" / "audit.log").rename(secret)
    (tmp_path / "backup" / "audit.log").symlink_to(secret)
    with pytest.raises(BackupError, match=r"audit\.log is missing"):
        restore(tmp_path / "backup", tmp_path / "again")


def test_on_a_full_disk_nothing_is_left(data: Path, tmp_path: Path) -> None:
    with largest_file(60_000), pytest.raises(OSError, match="File too large"):
        back_up(data, tmp_path / "backup")
    assert {path.name for path in tmp_path.iterdir()} == {"data", "file.npz"}
    back_up(data, tmp_path / "backup")
    with largest_file(60_000), pytest.raises(OSError, match="File too large"):
        restore(tmp_path / "backup", tmp_path / "again")
    assert {path.name for path in (tmp_path / "again").iterdir()} == {"lock"}
    restore(tmp_path / "backup", tmp_path / "again")


def killed(work: Callable[[], object], when: Callable[[], bool]) -> None:
    """Has a process of its own do some work again and again, and kills it when it is time."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    try:
        deadline = time.monotonic() + 30
        while not when() and process.is_alive():
            assert time.monotonic() < deadline
    finally:
        if process.pid:
            os.kill(process.pid, signal.SIGKILL)
        process.join()


def test_a_backup_that_was_killed_is_repeated(data: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / f".backup{UNFINISHED}"
    killed(lambda: back_up(data, tmp_path / "backup"), lambda: (unfinished / "checkpoints").exists())
    if not (tmp_path / "backup").exists():
        assert unfinished.exists()
        back_up(data, tmp_path / "backup")
    assert not verify(tmp_path / "backup").problems
    back_up(data, tmp_path / "another")  # which removes what is left, if anything is
    assert not list(tmp_path.glob(f".*{UNFINISHED}"))


def test_a_restore_that_was_killed_is_repeated_and_keeps_coordinators_out_until_then(
    data: Path, tmp_path: Path
) -> None:
    back_up(data, tmp_path / "backup")
    again = tmp_path / "again"
    killed(lambda: restore(tmp_path / "backup", again), lambda: (again / RESTORING / "datasets").exists())
    if (again / RESTORING).exists():
        with pytest.raises(DirectoryUnusable, match=r"a restore into the data directory .* broke off"):
            check_whole(again)
        restore(tmp_path / "backup", again)
    check_whole(again)
    assert not verify(again).problems


def test_a_restore_that_broke_off_at_its_very_end_is_repeated(data: Path, tmp_path: Path) -> None:
    back_up(data, tmp_path / "backup")
    again = tmp_path / "again"
    restore(tmp_path / "backup", again)
    (again / RESTORING).mkdir()
    (again / "jobs.sqlite").rename(again / RESTORING / "jobs.sqlite")
    restore(tmp_path / "backup", again)
    assert not verify(again).problems
    (again / RESTORING).mkdir()
    (again / "mine.txt").write_text("not of a backup")
    with pytest.raises(BackupError, match=r"isn't empty: it has mine\.txt"):
        restore(tmp_path / "backup", again)
    assert (again / "mine.txt").exists()


def test_nobody_restores_into_a_directory_in_use(data: Path, tmp_path: Path) -> None:
    back_up(data, tmp_path / "backup")
    with locked(tmp_path / "again"), pytest.raises(BackupError, match="in use by another"):
        restore(tmp_path / "backup", tmp_path / "again")
