"""A real Prometheus looks at a real job: every panel and every rule has data, and it is what the job did.

What is shown of workers lost, of errors and of waiting is 0 while all is well, and not nothing.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from chainrule.v1.training_event_pb2 import TrainingEvent
from chainrule.v1.training_job_pb2 import TrainingJob
from tests.system.coordinator import STEPS, Coordinator, digits, story
from tests.system.processes import until
from tests.system.prometheus import Prometheus, scraping

pytestmark = pytest.mark.system

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
STEP_PHASES = ("split", "wait", "forward", "backward", "gather", "average", "optimizer")
MORE_THAN_IT_COMES_TO = 100_000
"""Epochs. The job is stopped when everything has been seen, a checkpoint above all, which is due after ten seconds."""
LAYERS = [{"dense": {"units": 48}}, {"relu": {}}, {"dense": {"units": 24}}, {"sigmoid": {}}, {"dense": {"units": 10}}]


@dataclass(frozen=True)
class Watched:
    """What Prometheus saw of two jobs: one at work, and one that ended."""

    prometheus: Prometheus
    job_id: str
    """The one at work: the label of its series."""
    at_work: float
    """A moment at which it took its steps, in seconds since 1970."""
    ended: TrainingJob
    events: list[TrainingEvent]
    """Of the one that ended."""

    def value(self, metric: str, **labels: str) -> float:
        """What a metric of the job that ended came to."""
        labels = {"job_id": self.ended.name.removeprefix("jobs/"), **labels}
        matchers = ", ".join(f'{name}="{value}"' for name, value in labels.items())
        value = self.prometheus.value(f"{metric}{{{matchers}}}")
        assert value is not None, metric
        return value


@pytest.fixture(scope="module")
def watched(coordinator: Coordinator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Jobs with layers that may die and saturate, and somebody who asks a model."""
    client = coordinator.client
    directory = tmp_path_factory.mktemp("boards") / "prometheus"
    with scraping(coordinator.metrics.removeprefix("http://").removesuffix("/metrics"), directory) as prometheus:
        until(lambda: prometheus.value("up") == 1)  # What happens before the first scrape is in no rate.
        name = client.create_job(digits(network={"layers": LAYERS})).name
        events = story(client, name)
        ended = client.get_job(name)
        client.predict(ended.result.model, np.zeros((3, 64)))
        spec = digits(network={"layers": LAYERS}, epochs=MORE_THAN_IT_COMES_TO)
        job = client.create_job(TrainingJob(display_name="boards", spec=spec))
        label = job.name.removeprefix("jobs/")
        until(lambda: prometheus.value(f'chainrule_checkpoint_bytes{{job_id="{label}"}}'))
        (at_work,) = prometheus.query(f'timestamp(chainrule_job_info{{job_id="{label}", state="running"}})')
        client.cancel_job(job.name)
        yield Watched(prometheus, label, at_work.value, ended, events)


def panels() -> list[Any]:
    return [
        pytest.param(target["expr"], id=f"{path.stem}-{panel['title']}-{target['refId']}")
        for path in sorted(DEPLOY.glob("grafana/dashboards/*.json"))
        for panel in json.loads(path.read_text())["panels"]
        for target in panel.get("targets", [])
    ]


def rules() -> list[Any]:
    return [
        pytest.param(
            unfiltered(rule["expr"]) if "alert" in rule else rule["expr"], id=rule.get("alert") or rule["record"]
        )
        for path in sorted(DEPLOY.glob("prometheus/rules/*.yml"))
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]


def unfiltered(expression: str) -> str:
    """Has a comparison that doesn't hold give 0 instead of nothing, so that an alert has data while all is well."""
    return re.sub(r"(\{[^}]*\})|([=!<>]=|[<>])", lambda found: found[1] or f"{found[2]} bool", expression)


def with_variables(expression: str, job_id: str) -> str:
    """An expression as Grafana sends it."""
    values = {"$job_id": job_id, "$__rate_interval": "20s", "$__range": "1m"}
    return re.sub(r"\$\w+", lambda found: values[found[0]], expression)


@pytest.mark.parametrize("expression", [*panels(), *rules()])
def test_it_has_data(expression: str, watched: Watched) -> None:
    samples = watched.prometheus.query(with_variables(expression, watched.job_id), watched.at_work)
    assert samples, expression
    assert all(math.isfinite(sample.value) for sample in samples), samples


def test_every_rule_could_be_evaluated(watched: Watched) -> None:
    assert {rule["name"]: rule.get("lastError") for rule in watched.prometheus.rules() if rule["health"] != "ok"} == {}


def test_the_job_can_be_chosen_by_its_name(watched: Watched) -> None:
    board = json.loads((DEPLOY / "grafana" / "dashboards" / "job.json").read_text())
    (query,) = [v["query"] for v in board["templating"]["list"] if v["name"] == "job_id"]
    chosen = watched.prometheus.query(query.removeprefix("query_result(").removesuffix(")"), watched.at_work)
    assert f"boards {watched.job_id}" in {sample.labels["title"] for sample in chosen}


def test_numbers_are_those_of_the_events(watched: Watched) -> None:
    last = [event.epoch_completed for event in watched.events if event.HasField("epoch_completed")][-1]
    assert watched.value("chainrule_steps_total") == watched.value("chainrule_steps_expected") == last.step == STEPS
    assert watched.value("chainrule_epochs_total") == last.epoch
    assert watched.value("chainrule_training_loss") == watched.ended.progress.training_loss
    assert watched.value("chainrule_validation_loss") == last.validation_loss
    assert watched.value("chainrule_learning_rate") == last.learning_rate
    scores = {score: watched.value("chainrule_validation_score", score=score) for score in last.validation_scores}
    assert scores == dict(last.validation_scores)
    assert watched.value("chainrule_training_score", score="accuracy") == last.training_scores["accuracy"]


def test_the_layers_are_those_of_the_newest_look(watched: Watched) -> None:
    look = [event.health_sampled for event in watched.events if event.HasField("health_sampled")][-1]
    assert watched.value("chainrule_gradient_norm") == look.gradient_norm
    for layer in look.layers:
        for metric in ("gradient_norm", "parameter_norm", "update_ratio", "dead_ratio", "saturated_ratio"):
            if layer.HasField(metric):
                assert watched.value(f"chainrule_layer_{metric}", layer=layer.layer) == getattr(layer, metric)
        assert watched.value("chainrule_layer_output_mean", layer=layer.layer) == layer.output_mean
    assert {layer.kind for layer in look.layers if layer.HasField("dead_ratio")} == {"relu"}
    assert {layer.kind for layer in look.layers if layer.HasField("saturated_ratio")} == {"sigmoid"}


def test_the_phases_of_a_step_add_up_to_it(watched: Watched) -> None:
    seconds = sum(watched.value("chainrule_step_phase_seconds_sum", phase=phase) for phase in STEP_PHASES)
    assert seconds == pytest.approx(watched.value("chainrule_step_seconds_sum"), rel=0.05)
    assert watched.value("chainrule_step_seconds_count") == watched.value("chainrule_steps_total")


def test_a_job_that_fares_well_rings_no_bell(watched: Watched) -> None:
    firing = f'ALERTS{{job_id="{watched.ended.name.removeprefix("jobs/")}", alertstate="firing"}}'
    assert watched.prometheus.query(f"max_over_time({firing}[10m])") == []
