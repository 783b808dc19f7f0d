"""That a visit tells of what is wrong with a page: these tests stand for all that rely on it."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser.visiting import NARROW, visiting

SOUND = '<!doctype html><html lang="en"><title>A page</title><main><h1>A page</h1></main>'

WRONG = {
    "an error in the console": ("<script>console.error('no')</script>", "console: no"),
    "an error that nothing catches": ("<script>throw Error('broken')</script>", "error: broken"),
    "another origin": ('<img alt="" src="http://127.0.0.1:9/x.png">', "left its origin: http://127.0.0.1:9/x.png"),
    "another file": ('<img alt="" src="x.png">', "failed: "),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "page.html"


def test_a_sound_page_has_no_problems(browser: Browser, file: Path) -> None:
    file.write_text(SOUND)
    with visiting(browser, file) as visit:
        assert visit.page.title() == "A page"
        assert visit.violations() == []
        assert visit.overflow() == 0


@pytest.mark.parametrize("what", WRONG)
def test_problems_are_told(browser: Browser, file: Path, what: str) -> None:
    body, problem = WRONG[what]
    file.write_text(SOUND + body)
    with visiting(browser, file) as visit:
        visit.page.wait_for_timeout(100)
        assert any(problem in told for told in visit.problems)
        visit.problems.clear()


def test_a_problem_fails_the_visit(browser: Browser, file: Path) -> None:
    file.write_text(SOUND + "<script>console.warn('odd')</script>")
    with pytest.raises(AssertionError, match="odd"), visiting(browser, file):
        pass


def test_what_people_cannot_use_is_told(browser: Browser, file: Path) -> None:
    file.write_text(
        SOUND + '<p style="color:#999;background:#fff">pale</p><button></button><div style="width:500px">wide</div>'
    )
    with visiting(browser, file, size=NARROW) as visit:
        assert {text.partition(":")[0] for text in visit.violations()} >= {"color-contrast", "button-name"}
        assert visit.overflow() > 0
