"""What is acknowledged is on the disk, and reading it gives the same."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings

from service.jobs.events import Event, Queued, StateChanged
from service.jobs.job import advance
from service.jobs.store import SCHEMA_VERSION, JobStore, Record, StoreError
from service.wire.job import spec_text
from tests.unit.service.examples import NOON, job
from tests.unit.service.stories import HAPPENINGS, stories

FIRST = Record(1, NOON, StateChanged(Queued()))


def store_at(directory: Path | str) -> closing[JobStore]:
    return closing(JobStore(Path(directory, "jobs.sqlite"), spec_text()))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    with store_at(tmp_path) as opened:
        yield opened


@settings(max_examples=20)
@given(stories())
def test_a_replay_gives_the_job(story: list[tuple[datetime, Event]]) -> None:
    made = job()
    with TemporaryDirectory() as directory:
        with store_at(directory) as store:
            store.create(made, "", FIRST)
            for time, event in story:
                made = advance(made, event, time)
                store.append(made.id, Record(made.last_event, time, event))
        with store_at(directory) as store:
            assert list(store.load()) == [made]
            records = store.events(made.id, 0, -1)
            assert [record.number for record in records] == list(range(1, made.last_event + 1))
            assert [(record.time, record.event) for record in records[1:]] == story


def test_events_are_read_from_anywhere(store: JobStore) -> None:
    store.create(job(), "", FIRST)
    for number, event in enumerate(HAPPENINGS, start=2):
        store.append("job-a", Record(number, NOON, event))
    for after, most, numbers in ((0, 2, [1, 2]), (3, 2, [4, 5]), (7, 99, [8, 9, 10]), (10, 9, []), (12, 9, [])):
        assert [record.number for record in store.events("job-a", after, most)] == numbers
    assert store.events("job-b", 0, 9) == []


def test_a_number_is_given_once(store: JobStore) -> None:
    store.create(job(), "", FIRST)
    with pytest.raises(sqlite3.IntegrityError):
        store.append("job-a", FIRST)
    store.append("job-a", Record(2, NOON, HAPPENINGS[0]))
    assert [record.number for record in store.events("job-a", 0, 9)] == [1, 2]


def test_no_event_without_a_job(store: JobStore) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        store.append("job-b", FIRST)
    store.create(job(), "request", FIRST)
    assert (made := store.requested("request", ""))
    assert (made.id, made.spec, made.last_event) == ("job-a", job().spec, 0)  # as it was before its first event
    store.delete("job-a")
    assert (list(store.load()), store.events("job-a", 0, 9), store.requested("request", "")) == ([], [], None)


VERSION_1 = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, request_id TEXT UNIQUE,
    display_name TEXT NOT NULL, spec TEXT NOT NULL, rows INTEGER NOT NULL, created TEXT NOT NULL
) STRICT;
CREATE TABLE events (
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE, number INTEGER NOT NULL, time TEXT NOT NULL,
    body TEXT NOT NULL, PRIMARY KEY (job, number)
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 1;
"""


def test_a_file_by_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    made = job()
    (tmp_path / "newer").mkdir()
    with store_at(tmp_path / "newer") as newer:
        newer.create(made, "request", FIRST)
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as old:
        old.executescript(VERSION_1)
        old.execute("ATTACH ? AS newer", (str(tmp_path / "newer" / "jobs.sqlite"),))
        columns = "number, id, request_id, display_name, spec, rows, created"
        old.execute(f"INSERT INTO main.jobs SELECT {columns} FROM newer.jobs")  # noqa: S608 - no input of anyone's
        old.execute("INSERT INTO main.events SELECT * FROM newer.events")
        old.commit()
    for _ in range(2):
        with store_at(tmp_path) as store:
            assert list(store.load()) == [made]
            assert (found := store.requested("request", ""))
            assert found.id == made.id


def test_request_ids_are_each_principal_s_own(store: JobStore) -> None:
    names = ("", "alice", "bob")
    for number, name in enumerate(names):
        store.create(replace(job(), id=f"job-{number}", created_by=name), "request", FIRST)
    found = [store.requested("request", name) for name in names]
    assert [made and made.id for made in found] == ["job-0", "job-1", "job-2"]
    assert store.requested("request", "carol") is None
    assert [made.created_by for made in store.load()] == list(names)


def test_a_file_by_a_newer_version_is_refused(tmp_path: Path) -> None:
    with store_at(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(StoreError, match=f"version {SCHEMA_VERSION + 1}; this service knows {SCHEMA_VERSION}"):
        store_at(tmp_path)


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "jobs.sqlite").write_bytes(b"a text of more than a hundred bytes. " * 10)
    with pytest.raises(StoreError, match=r"jobs\.sqlite.*not a database"):
        store_at(tmp_path)
    with pytest.raises(StoreError, match=r"jobs\.sqlite"):
        store_at(tmp_path / "missing")


def test_a_full_disk_is_told_and_changes_nothing(tmp_path: Path) -> None:
    with store_at(tmp_path) as store:
        store.create(job(), "", FIRST)
    with store_at(tmp_path) as store:
        limit_pages(store)
        with pytest.raises(OSError, match="no space left"):
            store.append("job-a", Record(2, NOON, StateChanged(Queued("x" * 100_000))))
        assert list(store.load()) == [job()]
    with store_at(tmp_path) as store:
        store.append("job-a", Record(2, NOON, HAPPENINGS[0]))
        assert [record.number for record in store.events("job-a", 0, 9)] == [1, 2]


def limit_pages(store: JobStore) -> None:
    """Has SQLite say that the disk is full, by its own limit. It forgets that when the file is closed."""
    store._connection.execute("PRAGMA max_page_count = 1")
