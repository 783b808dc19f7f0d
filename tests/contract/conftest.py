"""One Ray for all modules but test_nodes.py, which comes before those that use it: it takes seconds to start."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.cluster.ray_cluster import RayCluster
from worker.segment import SHARED_MEMORY

SLOTS = 4
PREFIX = f"chainrule-contract-{os.getpid()}-"


def left_over() -> list[str]:
    """What there is in shared memory by us."""
    return [path.name for path in SHARED_MEMORY.iterdir() if PREFIX in path.name]


@contextmanager
def only_one_starts() -> Iterator[None]:
    """Rays that start in the same moment, from two processes of the tests, may take each other's session for theirs."""
    with (Path(tempfile.gettempdir()) / "chainrule-test-ray.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def cluster() -> Iterator[RayCluster]:
    """Workers in processes of their own."""
    with only_one_starts():
        made = RayCluster(None, SLOTS, PREFIX)
    with closing(made):
        yield made
    assert not left_over()


@pytest.fixture(scope="session")
def crew(cluster: RayCluster) -> list[Any]:
    """As many workers as there is room for, lent to one test after the other."""
    return [cluster.borrow() for _ in range(SLOTS)]
