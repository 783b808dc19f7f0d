"""Coordinators for the tests of the API: one that a module shares, or one of a test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.running import FLOWERS, Service, serving
from tests.unit.service.unreliable import GatedCluster


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """With the flowers and nothing else. For tests that change nothing, or nothing that others see."""
    with serving(tmp_path_factory.mktemp("data"), max_dataset_bytes=50_000) as service:
        service.upload("flowers", FLOWERS)
        yield service


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A test's own, with the flowers."""
    with serving(tmp_path, max_dataset_bytes=50_000, checkpoint_seconds=0.0) as service:
        service.upload("flowers", FLOWERS)
        yield service


@pytest.fixture
def cluster() -> Iterator[GatedCluster]:
    """Workers that compute nothing until a test opens the gate."""
    made = GatedCluster(slots=4)
    yield made
    made.gate.set()


@pytest.fixture
def gated(tmp_path: Path, cluster: GatedCluster) -> Iterator[Service]:
    """A test's own, on that cluster."""
    with serving(tmp_path, cluster, checkpoint_seconds=0.0) as service:
        service.upload("flowers", FLOWERS)
        yield service
        cluster.gate.set()
