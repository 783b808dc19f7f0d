"""The metrics of what models were asked for. Models are no label: there may be any number of them."""

from dataclasses import dataclass

from service.metrics.exposition import Metric, Spread, exposed
from service.models.loaded import LoadedModels
from service.models.usage import BUCKETS, Usage


@dataclass(frozen=True)
class Predictions:
    """What they are read from."""

    usage: Usage
    loaded: LoadedModels


METRICS: tuple[Metric[Predictions], ...] = (
    Metric(
        "counter",
        "chainrule_predictions_total",
        "Requests for predictions: answered; refused, for what the client sent; cancelled by it; or failed.",
        lambda seen: {(outcome,): count for outcome, count in seen.usage.requests.items()},
        labels=("outcome",),
    ),
    Metric("counter", "chainrule_prediction_rows_total", "Rows predicted.", lambda seen: seen.usage.rows),
    Metric(
        "histogram",
        "chainrule_prediction_seconds",
        "Time from a request for predictions to its answer.",
        lambda seen: Spread(tuple(seen.usage.counts), seen.usage.seconds),
        bounds=BUCKETS,
    ),
    Metric(
        "gauge",
        "chainrule_model_cache_bytes",
        "Memory of the models at hand. There is room for --model-cache-bytes.",
        lambda seen: seen.loaded.bytes,
    ),
    Metric("gauge", "chainrule_model_cache_models", "Models at hand.", lambda seen: seen.loaded.count),
    Metric(
        "counter",
        "chainrule_model_loads_total",
        "Models read from the disk. Where it rises steadily, more are in use than there is room for.",
        lambda seen: seen.loaded.loads,
    ),
)


class PredictionMetrics:
    """The metrics of one predictor."""

    def __init__(self, usage: Usage, loaded: LoadedModels) -> None:
        self._seen = Predictions(usage, loaded)

    def text(self) -> str:
        """Their part of a scrape."""
        return exposed(METRICS, [("", self._seen)])
