"""A real Prometheus with the rules of deploy/prometheus, which looks every second instead of every five."""

import json
import os
import re
import shutil
import signal
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.system.processes import started, until

CONFIGURATION = Path(__file__).resolve().parents[2] / "deploy" / "prometheus" / "prometheus.yml"


@dataclass(frozen=True)
class Sample:
    """A series and its value."""

    labels: dict[str, str]
    value: float


@dataclass(frozen=True)
class Prometheus:
    """One that is ready."""

    address: str

    def query(self, expression: str, time: float | None = None) -> list[Sample]:
        """What an expression gives, now or at a time; fails if that is not allowed."""
        parameters = {"query": expression, **({"time": str(time)} if time is not None else {})}
        (data,) = (self._get(f"query?{urllib.parse.urlencode(parameters)}"),)
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]))]
        return [Sample(series["metric"], float(series["value"][1])) for series in data["result"]]

    def value(self, expression: str) -> float | None:
        """The value of an expression that gives one series; None if it gives none now."""
        samples = self.query(expression)
        assert len(samples) < 2, samples
        return samples[0].value if samples else None

    def rules(self) -> list[dict[str, Any]]:
        """All that it evaluates, with the health of each: "ok" once it could be."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://{self.address}/api/v1/{path}", timeout=10) as response:
            return json.load(response)["data"]


@contextmanager
def scraping(target: str, directory: Path) -> Iterator[Prometheus]:
    """Prometheus as it is deployed, but for its target, its pace and where it keeps its data."""
    program = shutil.which("prometheus")
    if program is None:
        missing = "prometheus is not on the path; it is in Debian's package prometheus (apt-get install prometheus)"
        assert not os.environ.get("CHAINRULE_REQUIRE_TOOLS"), missing
        pytest.skip(missing)
    configuration = yaml.safe_load(CONFIGURATION.read_text())
    configuration["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    configuration["rule_files"] = [str(CONFIGURATION.parent / pattern) for pattern in configuration["rule_files"]]
    configuration["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
    directory.mkdir()
    (directory / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    command = [program, f"--config.file={directory / 'prometheus.yml'}", f"--storage.tsdb.path={directory / 'data'}"]
    with started([*command, "--web.listen-address=127.0.0.1:0"], directory) as process:
        until(lambda: "Server is ready" in process.stderr or process.has_ended())
        listening = re.search(r'"Listening on" address=(\S+)', process.stderr)
        assert listening, process.stderr
        yield Prometheus(listening[1])
        process.send(signal.SIGTERM)
