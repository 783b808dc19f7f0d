"""Which tests share a process: all that start Ray, one after the other, and those with the browser; the rest beside."""

import pytest

WITH_RAY = ("contract", "system")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests that start Ray into one group, and first, since they take the longest."""
    for item in items:
        folder = item.path.relative_to(item.config.rootpath / "tests").parts[0]
        if folder in WITH_RAY:
            item.add_marker(pytest.mark.xdist_group("ray"))
        elif folder == "browser":
            item.add_marker(pytest.mark.xdist_group("browser"))
