"""The audit log as a file."""

import json
from pathlib import Path

from service.access.audit import FILES_KEPT, LONGEST_TEXT, audit_log

HOSTILE = 'jobs/"\n{"principal": "root"}\u2028' * 100


def test_every_line_is_one_entry_whatever_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    with audit_log(path) as audit:
        audit.note("alice", "service/Method", HOSTILE, "NOT_FOUND", HOSTILE)
        audit.note("bob", "service/Method", "jobs/a", "OK", "ipv4:127.0.0.1:1")
    first, second = (json.loads(line) for line in path.read_bytes().split(b"\n")[:-1])
    assert (first["principal"], first["resource"], len(first["peer"])) == (
        "alice",
        HOSTILE[:LONGEST_TEXT],
        LONGEST_TEXT,
    )
    assert second == {
        "time": second["time"],
        "principal": "bob",
        "method": "service/Method",
        "resource": "jobs/a",
        "outcome": "OK",
        "peer": "ipv4:127.0.0.1:1",
    }


def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    for number in range(2):
        with audit_log(tmp_path / "audit.log") as audit:
            audit.note("alice", "m", f"jobs/{number}", "OK", "")
    assert len((tmp_path / "audit.log").read_text().splitlines()) == 2


def test_files_that_are_full_give_way_and_are_few(tmp_path: Path) -> None:
    with audit_log(tmp_path / "audit.log", largest_file=1_000) as audit:
        for number in range(200):
            audit.note("alice", "m", f"jobs/{number}", "OK", "")
    files = list(tmp_path.iterdir())
    assert len(files) == FILES_KEPT + 1
    assert all(file.stat().st_size <= 1_000 and file.stat().st_mode & 0o777 == 0o600 for file in files)
    assert json.loads((tmp_path / "audit.log").read_text().splitlines()[-1])["resource"] == "jobs/199"


def test_two_in_one_process_are_apart(tmp_path: Path) -> None:
    with audit_log(tmp_path / "a") as first, audit_log(tmp_path / "b") as second:
        first.note("alice", "m", "", "OK", "")
        second.note("bob", "m", "", "OK", "")
    assert [("alice" in (tmp_path / name).read_text()) for name in "ab"] == [True, False]


def test_a_call_that_ends_late_leaves_its_line(tmp_path: Path) -> None:
    with audit_log(tmp_path / "audit.log") as audit:
        pass
    audit.note("alice", "m", "jobs/late", "CANCELLED", "")
    assert "jobs/late" in (tmp_path / "audit.log").read_text()
