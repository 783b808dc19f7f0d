"""Limits of each principal, under a clock of the test's own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.access.limits import Limits, OpenCalls
from service.errors import ResourceExhausted


class Clock:
    """Stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@given(
    rate=st.floats(0.2, 50),
    waits=st.lists(st.floats(0, 3), min_size=1, max_size=60),
)
def test_never_more_than_the_rate_and_a_second_s_worth(rate: float, waits: list[float]) -> None:
    """And a caller who waits as long as was said is let through."""
    clock = Clock()
    limits = Limits(rate, 1_000, clock)
    begin = clock.now
    for made, wait in enumerate(waits, start=1):
        clock.now += wait
        try:
            limits.begin("alice")
        except ResourceExhausted as error:
            clock.now += (error.retry_seconds or 0.0) + 1e-6
            limits.begin("alice")
        assert made <= (clock.now - begin) * rate + max(rate, 1) + 1e-6


def test_each_principal_has_its_own() -> None:
    limits = Limits(1.0, 1_000, Clock())
    limits.begin("alice")
    with pytest.raises(ResourceExhausted, match="'alice' makes more than 1 calls a second"):
        limits.begin("alice")
    limits.begin("bob")


def test_calls_at_a_time() -> None:
    limits = Limits(1_000.0, 2, Clock())
    limits.begin("alice")
    limits.begin("alice")
    with pytest.raises(ResourceExhausted, match="'alice' makes 2 calls at this moment") as error:
        limits.begin("alice")
    assert error.value.retry_seconds is None
    limits.begin("bob")
    limits.end("alice")
    limits.begin("alice")


def test_calls_at_a_time_from_an_address_and_from_all() -> None:
    limits = OpenCalls(2, 3)
    for address in ("ipv4:192.0.2.1", "ipv4:192.0.2.1", "ipv4:192.0.2.2"):
        limits.begin(address)
    for address in ("ipv4:192.0.2.1", "ipv4:192.0.2.3"):
        with pytest.raises(ResourceExhausted, match="2 at a time from one address, and 3 altogether"):
            limits.begin(address)
    limits.end("ipv4:192.0.2.2")
    with pytest.raises(ResourceExhausted):
        limits.begin("ipv4:192.0.2.1")
    limits.begin("ipv4:192.0.2.3")
