"""What Prometheus and Grafana are given: that it is sound, fresh, and that whatever is linked to exists."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from deploy.grafana.__main__ import DASHBOARDS, generated

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
ALERTS = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "rules" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
BOARDS = {path.stem: json.loads(path.read_text()) for path in DASHBOARDS.glob("*.json")}
PANELS = [
    pytest.param(panel, id=f"{name}-{panel['title']}")
    for name, board in sorted(BOARDS.items())
    for panel in board["panels"]
    if panel["type"] != "row"
]


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "--lint-fatal", "rules/recording.yml", "rules/alerts.yml"),
        ("test", "rules", "tests/alerts.yml"),
    ],
    ids=["config", "rules", "alerts"],
)
def test_promtool_has_no_objection(arguments: tuple[str, ...]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        missing = "promtool is not on the path; it is in Debian's package prometheus (apt-get install prometheus)"
        assert not os.environ.get("CHAINRULE_REQUIRE_TOOLS"), missing
        pytest.skip(missing)
    checked = subprocess.run(
        [promtool, *arguments], cwd=PROMETHEUS, capture_output=True, text=True, timeout=60, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))
def test_an_alert_has_both_kinds_of_tests_and_somewhere_to_look(alert: dict[str, Any]) -> None:
    tests = [
        test.get("exp_alerts", [])
        for story in yaml.safe_load((PROMETHEUS / "tests" / "alerts.yml").read_text())["tests"]
        for test in story.get("alert_rule_test", [])
        if test["alertname"] == alert["alert"]
    ]
    assert any(tests), "no test in which it fires"
    assert not all(tests), "no test in which it doesn't"
    assert alert["labels"]["severity"] in ("critical", "warning")
    page = (ROOT / alert["annotations"]["runbook_url"]).read_text()
    assert f"`{alert['alert']}`, {alert['labels']['severity']}." in page
    assert re.findall("^## (.*)", page, re.MULTILINE) == ["What it means", "How to look", "What to do"]
    link = urlsplit(alert["annotations"]["dashboard_url"])
    assert link.path.removeprefix("/d/") in {board["uid"] for board in BOARDS.values()}


def test_there_is_no_runbook_without_an_alert() -> None:
    named = {Path(alert["annotations"]["runbook_url"]).name for alert in ALERTS}
    assert {path.name for path in (ROOT / "docs" / "runbooks").glob("*.md")} == named


def test_the_dashboards_are_fresh() -> None:
    assert {path: path.read_text() for path in DASHBOARDS.glob("*.json")} == generated()


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"]
    if panel["type"] == "text":
        assert panel["options"]["content"]
        return
    options = panel.get("options", {})
    units = [panel.get("fieldConfig", {}).get("defaults", {})]  # A heat map's are those of its cells and its axis.
    units += [options.get("cellValues", {}), options.get("yAxis", {})]
    assert any(part.get("unit") for part in units)
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert all(target["expr"] for target in panel["targets"])


@pytest.mark.parametrize("name", BOARDS)
def test_no_panel_hides_another(name: str) -> None:
    places = [panel["gridPos"] for panel in BOARDS[name]["panels"]]
    assert len({panel["id"] for panel in BOARDS[name]["panels"]}) == len(places)
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for a, b in combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        assert beside or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"], (a, b)


def urls(value: Any) -> Iterator[tuple[str, str]]:
    """Title and address of all links in a part of a dashboard."""
    if isinstance(value, dict):
        if str(value.get("url", "")).startswith("/"):
            yield value["title"], value["url"]
        for part in value.values():
            yield from urls(part)
    elif isinstance(value, list):
        for part in value:
            yield from urls(part)


@pytest.mark.parametrize("name", BOARDS)
def test_links_lead_to_what_they_say(name: str) -> None:
    boards = {f"/d/{board['uid']}": board for board in BOARDS.values()}
    links = [(title, urlsplit(url)) for title, url in urls(BOARDS[name])]
    for title, link in links:
        panels = boards[link.path]["panels"]
        if "viewPanel" in (query := parse_qs(link.query)):
            (page,) = [panel for panel in panels if panel["id"] == int(query["viewPanel"][0])]
            assert page["description"] == f"docs/runbooks/{title.removeprefix('Runbook: ')}.md"
    assert links or name == "runbooks"


def test_the_job_is_chosen_by_name_and_id() -> None:
    (variable,) = [v for v in BOARDS["job"]["templating"]["list"] if v["name"] == "job_id"]
    pattern = variable["regex"].strip("/").replace("(?<", "(?P<")
    # As Grafana writes what query_result gives: labels in order, then the value and the time.
    for title, text in (("wine 4f2", "wine 4f2"), (" 4f2", "4f2"), (r"a \"b\" 4f2", r"a \"b\" 4f2")):
        line = (
            f'chainrule_job_info{{instance="a:1", job="chainrule", job_id="4f2", state="failed", title="{title}"}} 1 17'
        )
        assert (found := re.search(pattern, line))
        assert found.groupdict() == {"value": "4f2", "text": text}


def test_grafana_finds_what_is_provisioned() -> None:
    folder = ROOT / "deploy" / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"]
    scraped = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    assert source["type"] == "prometheus"
    assert source["jsonData"]["timeInterval"] == scraped["global"]["scrape_interval"]
    (provider,) = yaml.safe_load((folder / "dashboards" / "chainrule.yml").read_text())["providers"]
    assert provider["type"] == "file"
