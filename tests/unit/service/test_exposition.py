"""Metrics as text: whatever they are, Prometheus's own parser gets back what was meant."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from service.metrics.exposition import Metric, Spread, exposed, labels_text


def samples(text: str) -> list[tuple[str, dict[str, str], float]]:
    return [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


@given(st.lists(st.tuples(st.text(), st.text()), unique=True, max_size=5), st.floats())
def test_any_label_and_any_number_comes_back(values: Sequence[tuple[str, str]], number: float) -> None:
    metric = Metric[None]("gauge", "a", "b.", lambda _: dict.fromkeys(values, number), labels=("x", "y"))
    found = samples(exposed([metric], [("", None)]))
    assert [labels for _, labels, _ in found] == [{"x": x, "y": y} for x, y in values]
    assert all(value == number or (math.isnan(value) and math.isnan(number)) for _, _, value in found)


def test_labels_of_what_is_seen_come_first() -> None:
    metric = Metric[float]("gauge", "a", "b.", lambda seen: {("1",): seen}, labels=("own",))
    text = exposed([metric], [(labels_text(("of",), ("x",)), 1.5), (labels_text(("of",), ("y",)), 2.5)])
    assert samples(text) == [("a", {"of": "x", "own": "1"}, 1.5), ("a", {"of": "y", "own": "1"}, 2.5)]


def test_a_histogram_counts_up() -> None:
    metric = Metric[Spread]("histogram", "a", "b.", lambda seen: seen, bounds=(0.5, 2.0))
    for outer in ("", labels_text(("of",), ("x",))):
        labels = {"of": "x"} if outer else {}
        assert samples(exposed([metric], [(outer, Spread((3, 0, 4), 12.5))])) == [
            ("a_bucket", {**labels, "le": "0.5"}, 3),
            ("a_bucket", {**labels, "le": "2.0"}, 3),
            ("a_bucket", {**labels, "le": "+Inf"}, 7),
            ("a_count", labels, 7),
            ("a_sum", labels, 12.5),
        ]


def test_what_is_not_there_has_no_series() -> None:
    metric = Metric[None]("counter", "a_total", "b.", lambda _: None)
    text = exposed([metric], [("", None)])
    assert samples(text) == []
    assert text == "# HELP a_total b.\n# TYPE a_total counter\n"


def test_a_histogram_with_too_few_counts_is_an_error() -> None:
    metric = Metric[None]("histogram", "a", "b.", lambda _: Spread((1,), 1.0), bounds=(0.5, 2.0))
    with pytest.raises(ValueError, match="zip"):
        exposed([metric], [("", None)])
