"""The durable state of jobs: their specifications and their numbered events, in SQLite.

Events are all there is; a job is what replaying them gives. A call returns once the disk has it (write-ahead log,
synced at every commit), so that nothing acknowledged is lost.
"""

import errno
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import TypeAdapter

from service.jobs.events import Event
from service.jobs.job import Job, advance
from service.jobs.spec import JobSpec

SCHEMA_VERSION = 3
SCHEMA = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    request_id TEXT UNIQUE,
    display_name TEXT NOT NULL,
    spec TEXT NOT NULL,
    rows INTEGER NOT NULL,
    created TEXT NOT NULL,
    created_by TEXT NOT NULL DEFAULT '',
    labels TEXT NOT NULL DEFAULT '{}'
) STRICT;
CREATE TABLE events (
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    time TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (job, number)
) STRICT, WITHOUT ROWID;
"""
MIGRATIONS = {
    1: "ALTER TABLE jobs ADD COLUMN created_by TEXT NOT NULL DEFAULT '';",
    2: "ALTER TABLE jobs ADD COLUMN labels TEXT NOT NULL DEFAULT '{}';",
}
"""What makes a file of that version one of the next."""

_SELECT = "SELECT id, display_name, spec, rows, created, created_by, labels FROM jobs"
_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


class StoreError(Exception):
    """The file cannot be used."""


@dataclass(frozen=True)
class Record:
    """A numbered event."""

    number: int
    time: datetime
    event: Event


@dataclass(frozen=True)
class SpecText:
    """How a specification is written into the store, and read back."""

    write: Callable[[JobSpec], str]
    read: Callable[[str], JobSpec]


class JobStore:
    """Jobs and events in one SQLite file. May be used from any thread."""

    def __init__(self, path: Path, spec_text: SpecText) -> None:
        """Opens the file, or makes it. Raises StoreError if it was written by a newer version, or is no such file."""
        self._spec_text = spec_text
        self._lock = threading.Lock()
        try:
            # Without an isolation level Python opens no transactions of its own: _transaction alone does.
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise StoreError(f"can't open {path}: {error}") from error
        try:
            self._prepare(path)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._connection.close()

    def create(self, job: Job, request_id: str, first: Record) -> None:
        """Adds a job with its first event."""
        with self._transaction() as execute:
            execute(
                "INSERT INTO jobs (id, request_id, display_name, spec, rows, created, created_by, labels) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    job.id,
                    _request_key(request_id, job.created_by),
                    job.display_name,
                    self._spec_text.write(job.spec),
                    job.rows,
                    job.created.isoformat(),
                    job.created_by,
                    json.dumps(dict(job.labels)),
                ),
            )
            execute(*_insert(job.id, first))

    def append(self, job: str, *records: Record) -> None:
        """Adds events, all or none. Raises sqlite3.IntegrityError if a number is taken or the job is gone."""
        with self._transaction() as execute:
            for record in records:
                execute(*_insert(job, record))

    def delete(self, job: str) -> None:
        """Removes a job and its events."""
        with self._transaction() as execute:
            execute("DELETE FROM jobs WHERE id = ?", (job,))

    def events(self, job: str, after: int, most: int) -> list[Record]:
        """Up to `most` events that follow number `after`, in order."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT number, time, body FROM events WHERE job = ? AND number > ? ORDER BY number LIMIT ?",
                (job, after, most),
            ).fetchall()
        return [_record(*row) for row in rows]

    def requested(self, request_id: str, created_by: str) -> Job | None:
        """The job that a principal's request made, if it did: as it was then, before its first event."""
        key = _request_key(request_id, created_by)
        with self._lock:
            row = self._connection.execute(f"{_SELECT} WHERE request_id = ?", (key,)).fetchone()
        return self._job(*row) if row else None

    def load(self) -> Iterator[Job]:
        """All jobs, the oldest first, each made by replaying its events."""
        with self._lock:
            rows = self._connection.execute(f"{_SELECT} ORDER BY number").fetchall()
        for row in rows:
            yield self._replayed(self._job(*row))

    def problems(self) -> Iterator[str]:
        """What is wrong with the file, a sentence each: its pages, its references, jobs that can't be replayed."""
        try:
            with self._lock:
                found = self._connection.execute("PRAGMA integrity_check(20)").fetchall()
                orphans = self._connection.execute("PRAGMA foreign_key_check").fetchall()
                rows = self._connection.execute(f"{_SELECT} ORDER BY number").fetchall()
        except sqlite3.Error as error:  # too damaged for SQLite to go on
            yield str(error)
            return
        yield from (text for (text,) in found if text != "ok")
        yield from (f"a row of the table {table} belongs to no row of {parent}" for table, _, parent, _ in orphans)
        for row in rows:
            try:
                job = self._replayed(self._job(*row))
            except Exception as error:  # whatever damage may lead to
                yield f"jobs/{row[0]} can't be replayed: {type(error).__name__}: {error}"
                continue
            numbers = [record.number for record in self.events(job.id, 0, -1)]
            if numbers != list(range(1, len(numbers) + 1)):
                yield f"{job.name} lacks some of its {numbers[-1]:,} events; has {len(numbers):,}"

    def _replayed(self, job: Job) -> Job:
        for record in self.events(job.id, 0, -1):
            job = advance(job, record.event, record.time)
        return job

    def _job(
        self, job_id: str, display_name: str, spec: str, rows: int, created: str, created_by: str, labels: str
    ) -> Job:
        """A job as it was created."""
        parsed, time = self._spec_text.read(spec), datetime.fromisoformat(created)
        return Job(job_id, display_name, parsed, rows, time, created_by=created_by, labels=json.loads(labels))

    def _prepare(self, path: Path) -> None:
        """Settings, and the tables if they aren't there."""
        try:
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "busy_timeout = 5000"):
                self._connection.execute(f"PRAGMA {pragma}")
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                self._connection.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
                version = SCHEMA_VERSION
            while version in MIGRATIONS:
                step = MIGRATIONS[version]
                self._connection.executescript(f"BEGIN; {step} PRAGMA user_version = {version + 1}; COMMIT;")
                version += 1
        except sqlite3.Error as error:
            raise StoreError(f"can't use {path}: {error}") from error
        if version != SCHEMA_VERSION:
            raise StoreError(f"{path} has schema version {version}; this service knows {SCHEMA_VERSION}")

    @contextmanager
    def _transaction(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        """Everything inside is on the disk afterwards, or nothing of it. Raises OSError if the disk is full."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection.execute
                self._connection.execute("COMMIT")
            except BaseException as error:
                if self._connection.in_transaction:  # SQLite itself rolls back when the disk is full
                    self._connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error) and error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                    raise OSError(errno.ENOSPC, "no space left for the jobs' store") from error
                raise


def copy_store(source: Path, target: Path) -> None:
    """Copies a store as it is at one moment, also while a coordinator writes to it, into a file with none beside it.

    Raises StoreError, or OSError if the disk is full.
    """
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as original,
            closing(sqlite3.connect(target)) as copy,
        ):
            original.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from error
        raise StoreError(f"can't copy {source}: {error}") from error


def job_ids(path: Path) -> set[str]:
    """The ids of the jobs in a file, which is only read. Raises StoreError."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            return {job_id for (job_id,) in connection.execute("SELECT id FROM jobs")}
    except sqlite3.Error as error:
        raise StoreError(f"can't read {path}: {error}") from error


def _request_key(request_id: str, created_by: str) -> str | None:
    """A request id as it is stored: each principal has its own. A line break is in neither of them."""
    return f"{created_by}\n{request_id}" if request_id and created_by else request_id or None


def _insert(job: str, record: Record) -> tuple[str, tuple[object, ...]]:
    body = _EVENT.dump_json(record.event).decode()
    return (
        "INSERT INTO events (job, number, time, body) VALUES (?, ?, ?, ?)",
        (job, record.number, record.time.isoformat(), body),
    )


def _record(number: int, time: str, body: str) -> Record:
    return Record(number, datetime.fromisoformat(time), _EVENT.validate_json(body))
