"""The log: lines of JSON that say where they come from, also those of another process."""

import io
import json
from collections.abc import Iterator

import pytest
import structlog
from structlog.contextvars import bound_contextvars

from service.log import LONGEST_TEXT, MOST_ENTRIES, Collected, configure_log, log_again


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def lines(written: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_an_entry_is_a_line_with_what_is_known_of_its_origin() -> None:
    written = io.StringIO()
    configure_log(written)
    with bound_contextvars(job="abc", call_id="7"):
        try:
            raise ValueError("two\nlines")
        except ValueError:
            structlog.get_logger().exception("broke", path="a")
    (entry,) = lines(written)
    assert {"event": "broke", "level": "error", "job": "abc", "call_id": "7", "path": "a"}.items() <= entry.items()
    assert "ValueError: two\nlines" in str(entry["exception"])


def test_what_another_process_logged_is_logged_again_with_its_job() -> None:
    other, here = io.StringIO(), io.StringIO()
    collected = Collected(other)
    structlog.get_logger().warning("is slow", worker=2, error=OSError("a"))
    taken = collected.take()
    assert collected.take() == ()
    assert [entry["event"] for entry in lines(other)] == ["is slow"]
    configure_log(here)
    with bound_contextvars(job="abc"):
        log_again(json.loads(json.dumps(taken)))  # plain data, whatever was logged
    (entry,) = lines(here)
    expected = {"event": "is slow", "level": "warning", "worker": 2, "error": "OSError('a')", "job": "abc"}
    assert expected.items() <= entry.items()


def test_of_too_much_the_newest_is_kept_and_none_of_it_is_long() -> None:
    collected = Collected(io.StringIO())
    for number in range(MOST_ENTRIES + 5):
        structlog.get_logger().info("x" * 2 * LONGEST_TEXT, number=number)
    taken = collected.take()
    assert [entry["number"] for entry in taken] == list(range(5, MOST_ENTRIES + 5))
    assert {len(entry["event"]) for entry in taken} == {LONGEST_TEXT}
