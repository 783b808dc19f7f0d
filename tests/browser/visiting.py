"""Pages as a person sees them: in a real Chromium, which tells of everything that went wrong in it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

SECONDS = 20.0
"""How long anything on a page may take before a test gives up on it."""

NAMES = ("chromium", "chromium-browser", "google-chrome")
"""What the browser may be called."""

WIDE = (1280, 900)
NARROW = (360, 740)
"""Width and height of the window: of a desk, and of a phone."""


@dataclass
class Visit:
    """A page that is open, and what went wrong on it."""

    page: Page
    problems: list[str] = field(default_factory=list)
    """Errors and warnings of its console, errors that nothing caught, requests that failed or left its origin."""

    def violations(self) -> list[str]:
        """What keeps people from using the page as it stands, by the rules of axe-core: WCAG and good practice."""
        found: Any = Axe().run(self.page).response["violations"]
        return [
            f"{violation['id']}: {violation['help']}: {node['html']} {node['failureSummary']}"
            for violation in found
            for node in violation["nodes"]
        ]

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window. Skips the test where there is none, but fails it where all tools must be there."""
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        missing = "no Chromium is on the path; it is in Debian's package chromium (apt-get install chromium)"
        assert not os.environ.get("CHAINRULE_REQUIRE_TOOLS"), missing
        pytest.skip(missing)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visiting(
    browser: Browser,
    address: str | Path,
    *,
    scheme: Literal["light", "dark"] = "light",
    size: tuple[int, int] = WIDE,
    calm: bool = True,
    password: str = "",
) -> Iterator[Visit]:
    """Opens a page, a URL or a file, in a session of its own.

    Its user prefers little motion if `calm`, and gives `password` where one is asked for.

    Leaving the context fails the test if anything went wrong on the page, unless the test took it out of `problems`.
    """
    url = address.resolve().as_uri() if isinstance(address, Path) else address
    width, height = size
    context = browser.new_context(
        color_scheme=scheme,
        viewport={"width": width, "height": height},
        reduced_motion="reduce" if calm else "no-preference",
        locale="en-GB",
        http_credentials={"username": "", "password": password} if password else None,
    )
    try:
        context.set_default_timeout(SECONDS * 1000)
        page = context.new_page()
        visit = Visit(page)
        problems = visit.problems

        def tell(text: str) -> None:
            problems.append(text)

        def look(requested: str) -> None:
            if origin(requested) != origin(url):
                tell(f"left its origin: {requested}")

        def failed(requested: str, why: str) -> None:
            if why != "net::ERR_ABORTED":  # the page itself gave it up, as it does when it is left
                tell(f"failed: {requested}: {why}")

        page.on("console", lambda m: tell(f"console: {m.text}") if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: tell(f"error: {error}"))
        page.on("request", lambda request: look(request.url))
        page.on("requestfailed", lambda request: failed(request.url, request.failure or ""))
        page.goto(url)
        yield visit
        assert not problems, "\n".join(problems)
    finally:
        context.close()


def origin(url: str) -> str:
    """Scheme, host and port; a file is of its own origin, as is what is written in the URL itself."""
    parts = urlsplit(url)
    if parts.scheme in ("data", "blob"):
        return "file://"
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme != "file" else url.partition("#")[0]
