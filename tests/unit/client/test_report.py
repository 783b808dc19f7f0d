"""Reports: everything that is known is in them, nothing that is not text, and nothing from elsewhere."""

import math
import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from chainrule.cli.curve import Scale
from chainrule.cli.report import History, render
from chainrule.cli.report.chart import Chart, thinned, ticks
from chainrule.v1.training_event_pb2 import StateChanged
from chainrule.v1.training_health_pb2 import HealthSampled
from chainrule.v1.training_job_pb2 import ConfusionRow, TrainingJob
from tests.unit.client.histories import HOSTILE, epoch, eventful, events_of, failed, job, look, result

NOW = datetime(2026, 9, 21, 15, 0, tzinfo=UTC)
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """A page taken apart."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.unbalanced: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        """All of it, with one space where there is any."""
        return " ".join(" ".join(self.texts).split())


def page(history: History) -> Page:
    return Page(render(history, NOW))


def test_everything_that_is_known_is_told() -> None:
    text = page(eventful()).text
    facts = [
        "SUCCEEDED",
        "41.5 s",
        "8 of 8",
        "160 of 160",
        "Validation f1 0.8642",
        "worker 1 lost at step 30: its process ended",
        "worker 1 joined before step 33",
        "rolled back to step 40, learning rate now 0.005: the loss is NaN",
        "jobs/j1 QUEUED: class 3 has no row",
        "Vanishing gradient in layers.0 From step 60 to 80 The gradient of layers.0 (1.2e-6) is 1/40,000 of that of",
        "Use relu with he initialization",
        "Overfitting Since step 100 The validation loss rose Stop early",
        "no more vanishing gradient after step 105",
        "layers.0 dense 3e-06 4 0.00125 - - 0.5 ± 1.5",
        "layers.1 relu - - - 25.0 % (most 75.0 %) - 1 ± 2",
        "0 31 2 1 · 47.5",
        "datasets/digits",
        "cd" * 32,
        "1,797",
        "ab" * 32,
        "ef" * 32,
        "4,810",
        "seed: 7",
        "The numbers of 8 epochs",
        "Made 2026-09-21 15:00:00 UTC by Chainrule",
        "2026-09-21 14:13:22 UTC",
    ]
    for fact in facts:
        assert fact in text
    for number in range(1, 9):
        assert f"{number} {20 * number} {math.exp(-number / 4):.4g}" in text


def test_points_of_curves_and_cells_of_the_map_can_be_pointed_at() -> None:
    text = page(eventful()).text
    for title in (
        "training 0.7788 at step 20",
        "validation 0.8288 at step 20",
        "learning rate 0.01 at step 160",
        "whole gradient 0.375 at step 110",
        "layers.2 dense, step 25: 0.0002",
        "step 51: rolled back: the loss is NaN",
        "step 100: overfitting: the validation loss rose",
    ):
        assert title in text


def test_hostile_names_are_text_and_nothing_else() -> None:
    hostile, tame = eventful(), eventful()
    tame.job.display_name = "tame"
    hostile.job.state_reason = hostile.job.error.message = HOSTILE
    hostile.job.spec.data.input_column = HOSTILE
    hostile.job.spec.data.target.classes.names.extend([HOSTILE, 'x" onload="y'])
    for event in hostile.events:
        for layer in event.health_sampled.layers:
            layer.layer = layer.kind = HOSTILE
        for name in ("worker_lost", "rolled_back"):
            if event.HasField(name):
                getattr(event, name).reason = HOSTILE
        if event.HasField("epoch_completed"):
            event.epoch_completed.validation_scores[HOSTILE] = 0.5
    found, expected = page(hostile), page(tame)
    assert HOSTILE in "".join(found.texts)
    assert set(found.tags) == set(expected.tags)
    assert {name for name, _ in found.attributes} == {name for name, _ in expected.attributes}
    assert found.unbalanced == []


def test_nothing_comes_from_elsewhere_and_nothing_runs() -> None:
    html = render(eventful(), NOW)
    found = Page(html)
    assert not {"script", "img", "iframe", "object", "embed", "base", "form", "a"} & set(found.tags)
    assert [value for name, value in found.attributes if name in ("src", "href", "srcset", "data", "action")] == [
        "data:,"
    ]
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    style = html.partition("<style>")[2].partition("</style>")[0]
    assert "prefers-color-scheme: dark" in style
    assert not re.search(r"url\(|@import|http", style)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'; img-src data:") in found.attributes


def test_control_characters_are_left_out() -> None:
    history = eventful()
    history.job.display_name = "a\x00b\x1bc\x85d"
    assert "abcd" in page(history).texts


def test_it_is_made_for_those_who_listen() -> None:
    found = page(eventful())
    assert ("lang", "en") in found.attributes
    assert found.tags.count("h1") == 1
    assert found.tags.count("caption") == found.tags.count("table")
    assert found.tags.count("figcaption") == found.tags.count("figure")
    html = render(eventful(), NOW)
    drawings = re.findall(r'<svg [^>]*role="img"[^>]*>(<title>[^<]+</title>)?', html)
    assert drawings
    assert all(drawings)


def test_a_job_that_failed_says_why() -> None:
    text = page(failed()).text
    assert "FAILED the loss is infinite at step 3 (TRAINING_DIVERGED)" in text
    assert "42.0 s" in text
    assert "datasets/digits (no longer there, or not yours to see)" in text


def test_a_job_that_has_hardly_begun_can_be_told_of() -> None:
    found = page(History(TrainingJob(name="jobs/j1", state=TrainingJob.QUEUED), []))
    assert "jobs/j1 QUEUED" in found.text
    assert found.unbalanced == []
    assert "svg" not in found.tags
    assert "was found wrong" not in found.text


def test_a_running_job_is_told_of_as_far_as_it_got() -> None:
    events = events_of(StateChanged(state=TrainingJob.RUNNING), epoch(1), look(1), epoch(2))
    text = page(History(job(state=TrainingJob.RUNNING), events)).text
    assert "Nothing was found wrong" in text
    assert "The numbers of 2 epochs" in text


def test_numbers_that_are_none_are_left_out_of_the_drawings() -> None:
    bad = HealthSampled(step=3, gradient_norm=math.nan)
    for index, norm in enumerate((math.nan, math.inf, 0.0)):
        layer = bad.layers.add(layer=f"layers.{index}", kind="dense", output_mean=math.nan)
        layer.gradient_norm = norm
    only = page(History(job(), events_of(epoch(1, training_loss=math.nan), bad)))
    assert not [value for name, value in only.attributes if "nan" in value or "inf" in value]
    assert "layers.0 dense, step 3: nan" in only.text


def test_a_long_story_of_many_layers_stays_small() -> None:
    looks = [look(step, layers=64) for step in range(1, 146)]
    for each in looks:
        for layer in each.layers:
            layer.gradient_norm = 0.5
    kinds = [StateChanged(state=TrainingJob.RUNNING), *looks, *(epoch(number) for number in range(1, 1001))]
    made = result()
    del made.confusion[:]
    made.confusion.extend(ConfusionRow(counts=[1.0] * 100) for _ in range(100))
    history = History(job(result=made), events_of(*kinds))
    assert len(render(history, NOW)) < 2_500_000
    more = History(history.job, events_of(*kinds, *kinds[1:], *[StateChanged(state=TrainingJob.QUEUED)] * 5_000))
    assert len(render(more, NOW)) < 3_500_000


def test_a_curve_of_one_point_is_drawn_and_one_of_none_is_not() -> None:
    assert Chart("Loss", [("training", [(5, 1.0)])]).draw() is not None
    assert Chart("Loss", [("training", [(5, math.nan)]), ("validation", [])]).draw() is None


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (Scale(0.0, 1.0), [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (Scale(-3.0, 2.0), [-3, -2, -1, 0, 1, 2]),
        (Scale(0.0, 46_000.0), [0, 10_000, 20_000, 30_000, 40_000]),
        (Scale(0.005, 20.0, logarithmic=True), [0.01, 0.1, 1, 10]),
        (Scale(2.0, 2.0), [2.0]),
    ],
    ids=["shares", "around 0", "thousands", "decades", "one value"],
)
def test_the_axes_have_round_numbers(scale: Scale, expected: list[float]) -> None:
    assert ticks(scale) == pytest.approx(expected)


def test_thinning_keeps_both_ends() -> None:
    assert thinned([1, 2, 3], 3) == [1, 2, 3]
    assert thinned(list(range(101)), 5) == [0, 25, 50, 75, 100]
