"""The web page in a real browser: what it shows of real jobs, for eyes, keyboards and screen readers."""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.api.principals import TOKENS, write_tokens
from tests.api.running import FLOWERS, Service, serving
from tests.browser.stories import HOSTILE, PLATEAU, VANISHING, troubled_job
from tests.browser.visiting import NARROW, SECONDS, WIDE, visiting
from tests.unit.service.unreliable import GatedCluster

expect.set_options(timeout=SECONDS * 1000)


@dataclass(frozen=True)
class Site:
    """The page, and what is behind it."""

    service: Service
    cluster: GatedCluster
    url: str
    troubled: str
    """The page of the job that has been through a lot."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory: Path = tmp_path_factory.mktemp("data")
    job = troubled_job(directory)
    cluster = GatedCluster(slots=4)
    with serving(directory, cluster, web_listen="127.0.0.1:0") as service:
        service.upload("flowers", FLOWERS)
        url = service.addresses["web"]
        yield Site(service, cluster, url, f"{url}jobs/{job}")
        cluster.gate.set()


def fact(page: Page, name: str) -> str:
    """What stands beside a name at the top of a job's page."""
    return page.locator(f"#facts div:has(dt:text-is('{name}')) dd").inner_text()


def width(part: Locator) -> float:
    """In pixels."""
    box = part.bounding_box()
    assert box
    return box["width"]


def test_a_job_is_followed_live_from_the_list_to_its_end_by_keyboard_alone(browser: Browser, site: Site) -> None:
    name = site.service.create(display_name="digits, first try").name
    with visiting(browser, site.url) as visit:
        page = visit.page
        row = page.locator("tr", has_text="digits, first try")
        expect(row.locator(".state")).to_have_text("Running")
        page.keyboard.press("Tab")
        expect(page.locator(":focus")).to_have_text("Skip to the jobs")
        page.keyboard.press("Enter")
        for _ in range(10):
            page.keyboard.press("Tab")
            if page.locator(":focus").inner_text() == "digits, first try":
                break
        site.cluster.let_through(1)
        expect(row).to_contain_text("step 1 of 12")
        expect(page.locator(":focus")).to_have_text("digits, first try")  # the row changed, and kept the focus
        page.keyboard.press("Enter")
        expect(page).to_have_url(f"{site.url}{name}")
        expect(page.locator("h1")).to_have_text("digits, first try")
        expect(page.locator("#connection")).to_have_text("Live")
        expect(page.locator("#facts")).to_contain_text("1 of 12")
        curve = page.get_by_role("img", name=re.compile("^Loss: "))
        for step in (2, 3):
            site.cluster.let_through(1)
            expect(curve).to_have_attribute("aria-label", re.compile(f"one step .*, at step {step}$"))
        shown = fact(page, "Training loss")
        assert float(shown) == pytest.approx(site.service.get(name).progress.training_loss, rel=1e-3)
        site.cluster.gate.set()
        expect(page.locator("#state")).to_have_text("Succeeded")
        expect(page.locator("#connection")).to_have_text("Ended")
        site.cluster.gate.clear()
        job = site.service.get(name)
        expect(page.locator("#facts")).to_contain_text(job.result.model)
        expect(curve).to_have_attribute("aria-label", re.compile(f"validation {job.result.validation_loss:.3f}"))
        assert fact(page, "Step") == "12 of 12"


def test_what_a_job_has_been_through_is_told_in_words_and_figures(browser: Browser, site: Site) -> None:
    with visiting(browser, site.troubled) as visit:
        page = visit.page
        expect(page.locator("#connection")).to_have_text("Ended")
        expect(page.locator("h1")).to_have_text(HOSTILE)
        expect(page.locator("article")).to_have_count(2)
        now, over = page.locator("article").all()
        for text in ("Vanishing gradient", "layers.0", VANISHING.evidence, VANISHING.advice):
            expect(now).to_contain_text(text)
        for text in ("Plateau", "From step 20 to 36", PLATEAU.evidence):
            expect(over).to_contain_text(text)
        expect(page.locator("#events")).to_contain_text(f"Worker 1 was lost at step 36: {HOSTILE}")
        maps = page.locator("canvas")
        expect(maps.nth(0)).to_have_attribute(
            "aria-label", "Gradient norm by layer of 4 layers in 30 looks, from 3.33e-8 to 1"
        )
        expect(maps.nth(1)).to_have_attribute("aria-label", re.compile("^Dead or saturated share of 4 layers"))
        assert fact(page, "Slowest worker") == "1.25 times the median"
        last = page.locator("#layers tbody tr").nth(0).locator("th, td").all_inner_texts()
        assert last[:5] == ["layers.0", "dense", "3.33e-8", "5", "0.001"]


def test_curves_are_read_out_by_arrow_keys_and_there_as_tables(browser: Browser, site: Site) -> None:
    with visiting(browser, site.troubled) as visit:
        page = visit.page
        expect(page.get_by_role("img", name=re.compile("^Loss: .*, at step 120$"))).to_be_visible()
        loss = page.locator("figure", has=page.get_by_role("heading", name="Loss"))
        loss.locator("svg[role=img]").focus()
        page.keyboard.press("End")
        expect(loss.locator("output")).to_have_text(
            re.compile("^step 120: training, mean of the epoch 0.002222, validation 0.06667$")
        )
        page.keyboard.press("ArrowLeft")
        expect(loss.locator("output")).to_have_text(re.compile("^step 116: "))
        loss.locator("summary").focus()
        page.keyboard.press("Enter")
        expect(loss.locator("tbody tr")).to_have_count(30)
        assert loss.locator("tbody tr").nth(29).locator("th, td").all_inner_texts() == ["4", "2", "2"]
        page.locator("canvas").nth(0).focus()
        page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowDown")
        heat = page.locator("figure", has=page.locator("canvas")).nth(0)
        expect(heat.locator("output")).to_have_text("layers.2 dense, step 120: 3.33e-6")


@pytest.mark.parametrize(("scheme", "size"), [("light", WIDE), ("dark", NARROW)], ids=["light", "dark"])
def test_everybody_can_use_it(
    browser: Browser, site: Site, scheme: Literal["light", "dark"], size: tuple[int, int]
) -> None:
    for url in (site.url, site.troubled):
        with visiting(browser, url, scheme=scheme, size=size) as visit:
            visit.page.wait_for_selector(".state")
            if url == site.troubled:
                expect(visit.page.locator("article")).to_have_count(2)
                for summary in visit.page.locator("summary").all():
                    summary.click()
            assert visit.violations() == []
            assert visit.overflow() == 0


def test_the_view_comes_back_from_where_it_was_when_the_coordinator_does(browser: Browser, tmp_path: Path) -> None:
    cluster = GatedCluster(slots=4)
    with ExitStack() as stack:
        with serving(tmp_path, cluster, web_listen="127.0.0.1:0") as service:
            service.upload("flowers", FLOWERS)
            name, url = service.create().name, service.addresses["web"]
            visit = stack.enter_context(visiting(browser, f"{url}{name}"))
            page = visit.page
            expect(page.locator("#connection")).to_have_text("Live")
            service.stop()
            cluster.gate.set()
        expect(page.locator("#connection")).to_have_class("lost")
        with serving(tmp_path, web_listen=urlsplit(url).netloc) as service:
            expect(page.locator("#state")).to_have_text("Succeeded")
            expect(page.locator("#connection")).to_have_text("Ended")
            numbers = [int(text) for text in page.locator("#events tbody th").all_inner_texts()]
            assert numbers == sorted(set(numbers), reverse=True)
            assert numbers[0] == service.get(name).last_event
            assert fact(page, "Step") == "12 of 12"
        visit.problems.clear()  # the browser itself tells of connections that failed


def test_a_job_that_is_not_there(browser: Browser, site: Site) -> None:
    with visiting(browser, f"{site.url}jobs/nothing") as visit:
        expect(visit.page.locator("#reason")).to_have_text("there is no job jobs/nothing")
        assert [problem for problem in visit.problems if "404" not in problem] == []
        visit.problems.clear()


def test_a_browser_gives_the_token_that_its_user_was_asked_for(browser: Browser, tmp_path: Path) -> None:
    with serving(tmp_path, web_listen="127.0.0.1:0", auth_tokens=write_tokens(tmp_path)) as service:
        url = service.addresses["web"]
        with visiting(browser, url, password=TOKENS["reader"]) as visit:
            expect(visit.page.locator("#none")).to_be_visible()
            expect(visit.page.locator("#connection")).to_have_text("Live")
            visit.problems.clear()  # the browser tells that it was asked


def test_the_anatomy_of_a_step_is_a_bar_and_a_table(browser: Browser, site: Site) -> None:
    """What is told of a step is made up, so that its parts are known."""
    seconds = {"forward": 0.002, "backward": 0.005, "gather": 0.001, "optimizer": 0.002, "validate": 9}
    progress = json.dumps({"step": "5", "totalSteps": "12", "phaseSeconds": seconds})
    with visiting(browser, site.url) as visit:
        page = visit.page
        page.route(
            "**/stream",
            lambda route: route.fulfill(
                content_type="text/event-stream", body=f"retry: 100000\nevent: progress\ndata: {progress}\n\n"
            ),
        )
        page.goto(site.troubled)
        anatomy = page.get_by_role("figure", name="Anatomy of a step")
        expect(anatomy.locator("tbody tr")).to_have_count(4)
        rows = [row.locator("th, td").all_inner_texts() for row in anatomy.locator("tbody tr").all()]
        assert rows == [
            ["forward", "2", "20 %"],
            ["backward", "5", "50 %"],
            ["gather", "1", "10 %"],
            ["optimizer", "2", "20 %"],
        ]
        widths = [width(part) for part in anatomy.locator(".stack svg").all()]
        assert [each / sum(widths) for each in widths] == pytest.approx([0.2, 0.5, 0.1, 0.2], abs=0.01)
        assert width(anatomy.locator("tbody svg").nth(0)) < 20
        assert visit.violations() == []
