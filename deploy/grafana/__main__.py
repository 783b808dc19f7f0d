"""Writes the dashboards, or says whether those that are there are fresh."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders.dashboard import Dashboard, DashboardLink, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    Panel,
    VariableRefresh,
    VariableSort,
)

from deploy.grafana import fleet, job, runbooks
from deploy.grafana.panels import PROMETHEUS

DASHBOARDS = Path(__file__).resolve().parent / "dashboards"
TAG = "chainrule"

ANNOTATION = {"datasource": {"type": "prometheus", "uid": "${datasource}"}, "enable": True, "step": "15s"}
"""What Prometheus's annotations have beside the fields that the SDK knows: it leaves them to the datasource."""


def fleet_dashboard() -> dict[str, Any]:
    """Everything that a coordinator does."""
    text = "Jobs, queue, workers, callers and disk of a coordinator."
    board = _dashboard("chainrule-fleet", "Chainrule: fleet", text)
    return _annotated(
        _with_rows(board, fleet.ROWS),
        {
            "name": "Alerts",
            "iconColor": "red",
            "expr": 'ALERTS{alertname=~"Chainrule.*", alertstate="firing"}',
            "titleFormat": "{{alertname}}",
            "textFormat": "{{display_name}} {{job_id}} {{instance}} {{reason}}",
        },
    )


def job_dashboard() -> dict[str, Any]:
    """Everything that is known of one job."""
    board = _dashboard("chainrule-job", "Chainrule: job", "The curves, steps, layers and workers of one job.")
    board.with_variable(
        QueryVariable("job_id")
        .label("Job")
        .description("A job that runs, or ended not long ago: by its display name, if it has one, and its id.")
        .datasource(PROMETHEUS)
        # A label that is empty is none at all; so the name is put together here, and found there.
        .query('query_result(label_join(chainrule_job_info, "title", " ", "display_name", "job_id"))')
        .regex(r'/job_id="(?<value>[^"]+)".*title=" ?(?<text>(?:[^"\\]|\\.)+)"/')
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_CASE_INSENSITIVE_ASC)
    )
    return _annotated(
        _with_rows(board, job.ROWS),
        {
            "name": "Diagnoses",
            "iconColor": "orange",
            "expr": f"{job.of_job('chainrule_diagnosis')} == 1",
            "titleFormat": "{{diagnosis}}",
            "textFormat": "chainrule jobs show $job_id",
        },
        {
            "name": "Alerts",
            "iconColor": "red",
            "expr": job.of_job("ALERTS", 'alertstate="firing"'),
            "titleFormat": "{{alertname}}",
            "textFormat": "{{severity}}",
        },
    )


def runbooks_dashboard() -> dict[str, Any]:
    """The runbooks, where those find them who look at a panel."""
    text = "What each alert means, how to look, and what to do: docs/runbooks/."
    board = _dashboard(runbooks.UID, "Chainrule: runbooks", text)
    for page in runbooks.pages():
        board.with_panel(page)
    return _encoded(board)


def generated() -> dict[Path, str]:
    """The text of every dashboard's file."""
    dashboards = {"fleet": fleet_dashboard(), "job": job_dashboard(), "runbooks": runbooks_dashboard()}
    return {DASHBOARDS / f"{name}.json": f"{json.dumps(board, indent=2)}\n" for name, board in dashboards.items()}


def _dashboard(uid: str, title: str, description: str) -> Dashboard:
    return (
        Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .refresh("10s")
        .time("now-30m", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .link(DashboardLink("Chainrule").type(DashboardLinkType.DASHBOARDS).tags([TAG]).keep_time(True))
    )


def _with_rows(board: Dashboard, rows: Mapping[str, Sequence[Builder[Panel]]]) -> Dashboard:
    for title, panels in rows.items():
        board.with_row(Row(title))
        for panel in panels:
            board.with_panel(panel)
    return board


def _annotated(board: Dashboard, *annotations: dict[str, Any]) -> dict[str, Any]:
    encoded = _encoded(board)
    encoded["annotations"] = {"list": [{**ANNOTATION, **annotation} for annotation in annotations]}
    return encoded


def _encoded(board: Dashboard) -> dict[str, Any]:
    encoded: dict[str, Any] = json.loads(JSONEncoder().encode(board.build()))
    for number, panel in enumerate(encoded["panels"], start=1):
        panel["id"] = number
    return encoded


def main() -> None:
    """Writes, or with --check compares."""
    files = generated()
    if "--check" not in sys.argv[1:]:
        for path, text in files.items():
            path.write_text(text, encoding="utf-8")
        return
    kept = {path: path.read_text(encoding="utf-8") for path in DASHBOARDS.glob("*.json")}
    if stale := sorted(path.name for path in files.keys() | kept.keys() if files.get(path) != kept.get(path)):
        sys.exit(f"dashboards that don't fit deploy/grafana/*.py: {', '.join(stale)}; run `make dashboards`")


if __name__ == "__main__":
    main()
