"""The runbooks of docs/runbooks/ as a dashboard, so that panels and alerts have something to link to.

Only Grafana is known to be there when somebody looks at a panel: where the project's documents are published is not.
"""

from collections.abc import Iterator
from pathlib import Path

from grafana_foundation_sdk.builders.text import Panel as TextPanel
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Panel
from grafana_foundation_sdk.models.text import TextMode

RUNBOOKS = Path(__file__).resolve().parents[2] / "docs" / "runbooks"
UID = "chainrule-runbooks"


def names() -> list[str]:
    """The runbooks' names, without .md, in order; a page's panel has the number of its place, from 1."""
    return sorted(path.stem for path in RUNBOOKS.glob("*.md"))


def runbook_url(name: str) -> str:
    """Where a runbook is in Grafana. Raises ValueError for one that doesn't exist."""
    return f"/d/{UID}?viewPanel={names().index(name) + 1}"


def pages() -> Iterator[Builder[Panel]]:
    """A panel for each runbook."""
    for name in names():
        heading, _, text = (RUNBOOKS / f"{name}.md").read_text(encoding="utf-8").partition("\n")
        yield (
            TextPanel()
            .title(heading.removeprefix("# "))
            .description(f"docs/runbooks/{name}.md")
            .mode(TextMode.MARKDOWN)
            .content(text.strip())
            .span(12)
            .height(14)
        )
