"""The metrics of a job's layers, as of the newest look at them: the health of its gradients."""

from collections.abc import Callable

from service.jobs.health import LayerHealth
from service.metrics.exposition import Labels, Metric
from service.metrics.shown import Shown

MOST_LAYERS = 64
"""How many of a network's layers have series, the first ones."""


def _of_layers(value: Callable[[LayerHealth], float | None]) -> Callable[[Shown], dict[Labels, float]]:
    """A figure of every layer to which it applies."""

    def read(seen: Shown) -> dict[Labels, float]:
        layers = seen.health.layers[:MOST_LAYERS] if seen.health else ()
        return {(layer.layer,): number for layer in layers if (number := value(layer)) is not None}

    return read


METRICS: tuple[Metric[Shown], ...] = (
    Metric(
        "gauge",
        "chainrule_gradient_norm",
        "Length of the mean gradient over all parameters, before clipping, at the newest look.",
        lambda seen: seen.health.gradient_norm if seen.health else None,
    ),
    Metric(
        "gauge",
        "chainrule_layer_gradient_norm",
        "Length of the mean gradient over a layer's parameters, before clipping. Where it shrinks from the last layer "
        "to the first by orders of magnitude, gradients vanish; where it grows, they explode.",
        _of_layers(lambda layer: layer.gradient_norm),
        labels=("layer",),
    ),
    Metric(
        "gauge",
        "chainrule_layer_parameter_norm",
        "Length of a layer's parameters, before the step.",
        _of_layers(lambda layer: layer.parameter_norm),
        labels=("layer",),
    ),
    Metric(
        "gauge",
        "chainrule_layer_update_ratio",
        "Length of a step's change of a layer's parameters, divided by theirs. About 0.001 is usual; far above, the "
        "learning rate is too high, and far below too low.",
        _of_layers(lambda layer: layer.update_ratio),
        labels=("layer",),
    ),
    Metric(
        "gauge",
        "chainrule_layer_dead_ratio",
        "Share of a layer's units that were 0 for all rows of the mini-batch, and so learned nothing from it.",
        _of_layers(lambda layer: layer.dead_ratio),
        labels=("layer",),
    ),
    Metric(
        "gauge",
        "chainrule_layer_saturated_ratio",
        "Share of a layer's outputs where the curve of its activation is almost flat, so that little gradient passes.",
        _of_layers(lambda layer: layer.saturated_ratio),
        labels=("layer",),
    ),
    Metric(
        "gauge",
        "chainrule_layer_output_mean",
        "Mean of a layer's outputs.",
        _of_layers(lambda layer: layer.output_mean),
        labels=("layer",),
    ),
    Metric(
        "gauge",
        "chainrule_layer_output_deviation",
        "Standard deviation of a layer's outputs.",
        _of_layers(lambda layer: layer.output_deviation),
        labels=("layer",),
    ),
)
