"""What the trainer sleeps on: every ring ends one wait, early or late, whether it looks out or sleeps."""

import os
import threading
import time
from collections.abc import Iterator

import pytest

from service.cluster.bells import LOOKING_SECONDS, Bell, SharedBell, ThreadBell
from tests.contract.tasks import NETWORK
from worker.segment import Layout, create, sweep

pytestmark = pytest.mark.system

PREFIX = f"chainrule-test-bells-{os.getpid()}-"
LONG = 20.0


@pytest.fixture(params=["shared", "of one process"])
def bell(request: pytest.FixtureRequest) -> Iterator[Bell]:
    if request.param != "shared":
        yield ThreadBell()
        return
    segment = create(PREFIX, Layout(NETWORK.size, 1, 1, (), ()))
    try:
        yield SharedBell(segment)
    finally:
        segment.close()
        sweep(PREFIX)


@pytest.mark.parametrize("looking", [False, True], ids=["asleep", "looking"])
@pytest.mark.parametrize("after", [-1.0, 0.0, LOOKING_SECONDS / 4, 100 * LOOKING_SECONDS])
def test_a_ring_ends_one_wait(bell: Bell, after: float, looking: bool) -> None:
    ringing = threading.Timer(max(after, 0), bell.ring)
    ringing.start()
    if after < 0:
        ringing.join()  # it was rung before anyone waited
    began = time.monotonic()
    bell.wait(LONG, looking=looking)
    assert time.monotonic() - began < LONG / 2
    ringing.join()
    began = time.monotonic()
    bell.wait(0.02, looking=looking)
    assert time.monotonic() - began >= 0.019, "one ring ended two waits"
