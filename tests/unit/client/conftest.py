"""A fake service and a client of it, for every test that asks."""

from collections.abc import Iterator

import pytest

from chainrule import Client
from tests.unit.client.fakes import FakeService, serving


@pytest.fixture
def service() -> Iterator[FakeService]:
    """One that behaves; a test may change its script before it calls."""
    with serving(FakeService()) as running:
        yield running


@pytest.fixture
def client(service: FakeService) -> Iterator[Client]:
    """Connected to `service`."""
    with Client(service.address, timeout=10) as connected:
        yield connected
