"""One Ray for all of this folder: it takes seconds to start."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from service.cluster.ray_pool import RayPool

SLOTS = 4


@pytest.fixture(scope="session")
def ray_pool() -> Iterator[RayPool]:
    """Workers in processes of their own."""
    with closing(RayPool(None, SLOTS)) as pool:
        yield pool
