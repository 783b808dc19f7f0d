"""Who gives way to whom where trainer and workers share processors."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.contract.tasks import TASK, until
from tests.contract.working import process, working

pytestmark = pytest.mark.system


def test_the_thread_that_serves_gives_way_to_the_trainer_when_it_is_woken(crew: list[Any]) -> None:
    pid = process(crew[-1])

    def policies() -> set[int]:
        found = set()
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(ProcessLookupError):  # it may have ended by now
                found.add(os.sched_getscheduler(int(thread.name)))
        return found

    with working(crew, TASK, 1):
        until(lambda: os.SCHED_BATCH in policies())
