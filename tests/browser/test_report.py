"""A report in a real browser: nothing is fetched, nothing goes wrong, and everybody can use it."""

from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser

from chainrule.cli.report import History, render
from tests.browser.visiting import NARROW, WIDE, visiting
from tests.unit.client.histories import HOSTILE, OVERFITTING, VANISHING, epoch, eventful, events_of, job, look

LEAST_PIXELS = 9
"""Of a line of text in a chart: with less, nobody can read it."""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(eventful()), encoding="utf-8")
    return path


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(
    browser: Browser, file: Path, scheme: Literal["light", "dark"], size: tuple[int, int]
) -> None:
    with visiting(browser, file, scheme=scheme, size=size) as visit:
        visit.page.locator("summary").click()
        assert visit.violations() == []
        assert visit.overflow() == 0


def test_what_was_found_is_read_on_a_phone_without_scrolling_sideways(browser: Browser, file: Path) -> None:
    with visiting(browser, file, size=NARROW) as visit:
        for text in (VANISHING.evidence, VANISHING.advice, OVERFITTING.advice, "From step 60 to 80"):
            box = visit.page.locator(".finding").get_by_text(text).first.bounding_box()
            assert box is not None, text
            assert box["x"] >= 0, text
            assert box["x"] + box["width"] <= NARROW[0], text
        heights = (
            """[...document.querySelectorAll("svg.chart text")].map(text => text.getBoundingClientRect().height)"""
        )
        assert min(visit.page.evaluate(heights)) > LEAST_PIXELS


def test_it_looks_as_the_reader_prefers(browser: Browser, file: Path) -> None:
    backgrounds = []
    for scheme in ("light", "dark"):
        with visiting(browser, file, scheme=scheme) as visit:
            backgrounds.append(visit.page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert backgrounds == ["rgb(255, 255, 255)", "rgb(20, 24, 29)"]


def test_a_hostile_name_is_nothing_but_text(browser: Browser, file: Path) -> None:
    with visiting(browser, file) as visit:
        assert visit.page.locator("h1").inner_text() == HOSTILE
        assert visit.page.locator("script").count() == 0
        assert visit.page.title() == f"{HOSTILE} · Chainrule"


def test_curves_and_maps_are_drawn_within_their_frames(browser: Browser, tmp_path: Path) -> None:
    """Every path, cell and label lies within its drawing."""
    outside = """[...document.querySelectorAll("svg.chart")].flatMap(svg => {
        const frame = svg.getBoundingClientRect();
        return [...svg.querySelectorAll("path, rect, text")].filter(part => {
            const box = part.getBoundingClientRect();
            return box.left < frame.left - 1 || box.right > frame.right + 1 ||
                box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
        }).map(part => part.outerHTML);
    })"""
    looks = [look(1_234_567 + 100_000 * number) for number in range(100)]
    for each in looks:
        each.layers[0].layer = "a layer with quite a long name " * 3
    path = tmp_path / "report.html"
    path.write_text(render(History(job(), events_of(*looks, epoch(1), epoch(600_000)))), encoding="utf-8")
    with visiting(browser, path) as visit:
        assert visit.page.locator("svg.chart").count() == 6
        assert visit.page.evaluate(outside) == []
