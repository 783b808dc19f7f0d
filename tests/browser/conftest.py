"""The browser, which all tests here share."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser.visiting import chromium


# Not for the session: while it is open, nothing else in the process can start a loop of asyncio.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened
