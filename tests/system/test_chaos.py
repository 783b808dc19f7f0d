"""A short campaign of faults, one after the other on the same coordinator. `make chaos` runs the long one."""

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest

from tests.chaos.campaign import Result, table
from tests.chaos.faults import FAULTS
from tests.chaos.stage import Stage, stage
from tests.chaos.training import measure

EPOCHS = 40
SHORT = ("worker-killed", "trainer-killed", "worker-slow", "paused", "rolled-back", "coordinator-killed")

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A coordinator and what its job comes to undisturbed. In the end nothing of it may be left."""
    with stage(tmp_path_factory.mktemp("chaos"), Random(5), EPOCHS, None) as quiet:
        yield replace(quiet, yardstick=measure(quiet.job()))


@pytest.mark.parametrize("fault", SHORT)
def test_a_job_ends_with_the_same_bits_in_spite_of(fault: str, calm: Stage) -> None:
    FAULTS[fault](calm)


def test_without_ray_a_coordinator_ends_and_says_why(calm: Stage) -> None:
    """And the job goes on when it is started again."""
    FAULTS["head-killed"](calm)


def test_the_table_counts_what_survived_and_says_what_was_skipped() -> None:
    results = [
        Result("worker-killed", 2.0),
        Result("worker-killed", 4.0, problem="other bits"),
        Result("disk-full", 0.0, skipped="not root"),
    ]
    assert [line.split() for line in table(results).splitlines()] == [
        ["fault", "times", "survived", "seconds"],
        ["worker-killed", "2", "1", "3.0"],
        ["disk-full", "skipped:", "not", "root"],
    ]
