"""One Ray for all modules but test_nodes.py, which comes before those that use it: it takes seconds to start."""

import os
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from service.cluster.ray_cluster import RayCluster
from worker.segment import SHARED_MEMORY

SLOTS = 4
PREFIX = f"chainrule-contract-{os.getpid()}-"


def left_over() -> list[str]:
    """What there is in shared memory by us."""
    return [path.name for path in SHARED_MEMORY.iterdir() if PREFIX in path.name]


@pytest.fixture(scope="session")
def cluster() -> Iterator[RayCluster]:
    """Workers in processes of their own."""
    with closing(RayCluster(None, SLOTS, PREFIX)) as made:
        yield made
    assert not left_over()


@pytest.fixture(scope="session")
def crew(cluster: RayCluster) -> list[Any]:
    """As many workers as there is room for, lent to one test after the other."""
    return [cluster.borrow() for _ in range(SLOTS)]
