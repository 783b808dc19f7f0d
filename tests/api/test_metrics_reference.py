"""docs/metrics.md, against what a coordinator really serves."""

import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.metrics import reference
from tests.api.running import SECONDS, Service

ROOT = Path(__file__).resolve().parents[2]

NOT_HERE = {
    "chainrule_remaining_seconds",  # of a job that runs
    "chainrule_checkpoint_age_seconds",
    "chainrule_layer_saturated_ratio",  # of sigmoid and tanh
    "chainrule_straggler_ratio",  # of workers that are processes
    "chainrule_worker_compute_seconds_total",
}
"""What the job of this test has no series of."""


@pytest.fixture(scope="module")
def page() -> str:
    return (ROOT / reference.PAGE).read_text()


def test_it_is_as_it_should_be(page: str) -> None:
    assert page == reference.page(), "run `make docs`"


def test_it_has_everything_that_is_served_and_nothing_else(page: str, service: Service) -> None:
    assert service.end(service.create().name).HasField("result")
    with urllib.request.urlopen(service.addresses["metrics"], timeout=SECONDS) as response:  # noqa: S310 - our own http
        families = list(text_string_to_metric_families(response.read().decode()))
    served = {f"{f.name}_total" if f.type == "counter" else f.name: f for f in families}
    described = {
        cells[1].strip(" `"): cells
        for line in page.splitlines()
        if len(cells := line.split("|")) == 7 and "`" in cells[1]
    }
    assert described.keys() == served.keys()
    for name, (_, _, kind, labels, unit, text, _) in described.items():
        family = served[name]
        assert (kind.strip(), text.strip().rstrip(".")) == (family.type, family.documentation.rstrip("."))
        for sample in family.samples:
            assert {label for label in sample.labels if label != "le"} == set(labels.strip(" `").split("`, `")) - {""}
        assert name.removesuffix("_total").endswith(unit.strip())
    assert {name for name, family in served.items() if not family.samples} <= NOT_HERE
