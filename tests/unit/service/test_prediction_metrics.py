"""What Prometheus scrapes of predictions."""

from pathlib import Path

import pytest

from service.metrics.predictions import PredictionMetrics
from service.models.usage import Usage
from tests.unit.service.scraping import Scraped
from tests.unit.service.test_loaded import BYTES, loading, made


def test_predictions(tmp_path: Path) -> None:
    """Counted by outcome; the histogram is of all requests."""
    usage, loaded = Usage(), loading(made(tmp_path, "a"), 1)
    loaded.load("a")
    for outcome, seconds, rows in (("answered", 0.002, 10), ("answered", 20.0, 5), ("refused", 0.0001, 0)):
        usage.count(outcome, seconds, rows)
    scraped = Scraped(PredictionMetrics(usage, loaded).text())
    counted = [scraped.value("predictions_total", outcome=outcome) for outcome in ("answered", "refused", "failed")]
    assert counted == [2, 1, 0]
    assert scraped.value("prediction_rows_total") == 15
    buckets = [scraped.value("prediction_seconds_bucket", le=le) for le in ("0.0005", "0.0025", "10.0", "+Inf")]
    assert buckets == [1, 2, 2, 3]
    assert scraped.value("prediction_seconds_sum") == pytest.approx(20.0021)
    names = ("model_cache_bytes", "model_cache_models", "model_loads_total")
    assert [scraped.value(name) for name in names] == [BYTES, 1, 1]
