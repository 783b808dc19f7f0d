"""What is wrong within the layers, by the newest looks at them.

The first steps are left out: there a network finds its outputs' mean, and nothing is as it will be.
"""

from collections.abc import Callable, Iterator, Mapping
from statistics import median

from service.jobs.health import Diagnosis, HealthSampled, LayerHealth
from service.jobs.job import Job
from service.jobs.past import MOST_LOOKS
from service.training.diagnostics.finding import LARGEST, Finding, Findings, number, percent, ratio, shows
from service.training.optimizers import Momentum, Sgd

FIRST_STEP = 10
"""Looks before this step don't count."""

VANISHED, BACK = 100.0, 30.0
"""A layer's gradient is so many times shorter than one behind it. With sigmoids, whose slope is 1/4 at the most, it is
10, 40 and 700 times shorter over 2, 3 and 5 layers of 32 units on scikit-learn's digits, and 1 with as many of relu
(Hochreiter 1991; Glorot and Bengio 2010, section 4)."""
VANISHED_TO_NOTHING = 1e6
"""So many times shorter, whatever an optimizer that divides by the gradient's own size still makes of it."""
STILL = 1e-4
"""Layers whose updates are smaller than this beside the parameters hardly learn: a tenth of the customary 1e-3
(Karpathy, notes of Stanford's CS231n, "Learning")."""

EXPLODED, CALMED = 10.0, 3.0
"""So many times the length of the parameters: a rate of 0.01 then changes a tenth of them in one step. Not judged where
the optimizer divides the gradient by its own size, as Adam does."""
GROWN = 1e3
"""Or a layer's gradient is so many times longer than the last one's, and no shorter than its own parameters (Pascanu,
Mikolov and Bengio 2013)."""

DEAD, ALIVE = 0.5, 0.4
"""The share of a layer's units that were 0 for every row. Some die in every network of relus (Maas, Hannun and Ng
2013); when it is half of them, a network of half the width would do as well."""
FEW_ROWS, DEAD_OF_FEW = 32, 0.9
"""With fewer rows in a mini-batch a unit may be 0 for all of them by chance, and more must be so."""

SATURATED, UNSATURATED = 0.75, 0.6
"""The share of outputs in the flat ends of sigmoid or tanh, where less than 5 % of the slope is left: the gradient
through such a layer is a small part of what it should be (Glorot and Bengio 2010, section 3)."""

SLOW, AS_FAST = 2.0, 1.5
"""How many times as long as the median the slowest worker takes: a step then costs twice what it could."""

WITHOUT_WEIGHTS = frozenset({"batch_norm", "layer_norm", "group_norm", "embedding", "rescale", "positional_encoding"})
"""Kinds of layers whose gradients say little of what comes through: scales, shifts, and rows that few look up."""

Values = Callable[[HealthSampled], Mapping[str, float]]
"""What is read off a look, by layer."""


def looks_of(job: Job) -> tuple[HealthSampled, ...] | None:
    """The looks that judgements are made by; None before there are enough."""
    looks = job.past.looks
    return looks if len(looks) == MOST_LOOKS and looks[0].step >= FIRST_STEP else None


def weighted(look: HealthSampled) -> list[LayerHealth]:
    """The layers with weights that change, in order."""
    return [layer for layer in look.layers if layer.gradient_norm is not None and layer.kind not in WITHOUT_WEIGHTS]


def update_ratios(job: Job) -> Mapping[str, float]:
    """The median of each weighted layer's updates beside its parameters, in the newest looks."""
    ratios: dict[str, list[float]] = {}
    for look in job.past.looks:
        for layer in weighted(look):
            if layer.update_ratio is not None:
                ratios.setdefault(layer.layer, []).append(layer.update_ratio)
    return {layer: median(values) for layer, values in ratios.items()}


def vanishing_gradient(job: Job, held: Diagnosis | None) -> Findings:
    """Layers whose gradient is a small part of that of a layer behind them, and which hardly learn."""
    if (looks := looks_of(job)) is None:
        return None
    updates = update_ratios(job)
    findings = []
    for layer, values in _showing(looks, _shrinking, VANISHED, BACK, held):
        learns = updates.get(layer, 0.0) >= STILL and min(values) < VANISHED_TO_NOTHING
        if learns and (held is None or held.layer != layer):
            continue
        own, behind, norm = _newest_pair(looks[-1], layer)
        part = "" if own == 0 else f" is 1/{number(ratio(norm, own))} of that of {behind} ({number(norm)})"
        nothing = f" is nothing beside that of {behind} ({number(norm)})" if own == 0 else ""
        evidence = f"the gradient of {layer} ({number(own)}){part or nothing}, {_over(looks)}"
        advice = (
            "Use relu with he initialization in place of sigmoid or tanh, or normalization or residual blocks between "
            "the layers, and inputs of about unit size; a larger learning rate alone doesn't help"
        )
        findings.append(Finding(median(values), evidence, advice, layer))
    return findings


def exploding_gradient(job: Job, held: Diagnosis | None) -> Findings:
    """Layers whose gradient is many times longer than their parameters, or than the last layer's."""
    if (looks := looks_of(job)) is None:
        return None
    if job.spec.regularization.clip_norm is not None or job.spec.regularization.clip_value is not None:
        return []  # that is what clipping is for
    exploded = EXPLODED if isinstance(job.spec.optimizer, Sgd | Momentum) else LARGEST
    advice = (
        "Clip the gradient (optimizer.clip_norm, about 1), scale inputs and targets to about unit size, and use "
        "he or orthogonal initialization, or normalization between the layers"
    )
    findings = []
    for layer, values in _showing(looks, lambda look: _overgrown(look, exploded), 1.0, CALMED / EXPLODED, held):
        own = next(each for each in weighted(looks[-1]) if each.layer == layer)
        length, last = own.gradient_norm or 0.0, weighted(looks[-1])[-1]
        beside = f"{number(ratio(length, own.parameter_norm or 0.0))} times as long as its parameters"
        if last.layer != layer:
            beside += f" and {number(ratio(length, last.gradient_norm or 0.0))} times as long as that of {last.layer}"
        evidence = f"the gradient of {layer} ({number(length)}) is {beside}, {_over(looks)}"
        findings.append(Finding(median(values), evidence, advice, layer))
    return findings


def dead_units(job: Job, held: Diagnosis | None) -> Findings:
    """Layers of relu of whose units many are 0 for all rows."""
    if (looks := looks_of(job)) is None:
        return None
    enter = DEAD if job.spec.batch_size >= FEW_ROWS else DEAD_OF_FEW
    advice = (
        "Use a smaller learning rate, he initialization and inputs of about unit size, or leaky_relu, elu or gelu, "
        "whose units can't die; batch_norm before the activation helps too"
    )
    return [
        Finding(
            median(values),
            f"{percent(median(values))} of the units of {layer} are 0 for every row of the mini-batch, {_over(looks)}",
            advice,
            layer,
        )
        for layer, values in _showing(looks, _dead, enter, ALIVE, held)
    ]


def saturation(job: Job, held: Diagnosis | None) -> Findings:
    """Hidden layers of sigmoid or tanh of whose outputs many lie where the curve is flat."""
    if (looks := looks_of(job)) is None:
        return None
    advice = (
        "Scale the inputs to about unit size, use glorot initialization and a smaller learning rate, or normalization "
        "before the activation, or relu in its place"
    )
    return [
        Finding(
            median(values),
            f"{percent(median(values))} of the outputs of {layer} lie where its curve is flat, {_over(looks)}",
            advice,
            layer,
        )
        for layer, values in _showing(looks, _saturated, SATURATED, UNSATURATED, held)
    ]


def stragglers(job: Job, held: Diagnosis | None) -> Findings:
    """One of the workers takes much longer than the others."""
    looks = looks_of(job)
    values = [look.straggler_ratio for look in looks or () if look.straggler_ratio is not None]
    if len(values) < MOST_LOOKS:
        return None
    if not shows(values, SLOW, AS_FAST, held=held is not None):
        return []
    times = number(median(values))
    evidence = f"the slowest worker took {times} times as long as the median for a shard, {_over(looks or ())}"
    advice = (
        "See what else runs on its machine, or whether it has fewer or slower cores; with more shards than workers, "
        "such as four for each, the fast ones take more of them"
    )
    return [Finding(median(values), evidence, advice)]


def _showing(
    looks: tuple[HealthSampled, ...], read: Values, enter: float, leave: float, held: Diagnosis | None
) -> Iterator[tuple[str, list[float]]]:
    """The layers that were in every look and show a trouble, and the values by which they do."""
    seen = [read(look) for look in looks]
    for layer in seen[-1]:
        values = [each[layer] for each in seen if layer in each]
        known = held is not None and held.layer == layer
        if len(values) == len(looks) and shows(values, enter, leave, held=known):
            yield layer, values


def _shrinking(look: HealthSampled) -> Mapping[str, float]:
    """How many times longer the longest gradient is behind each layer."""
    longest, shrinking = 0.0, {}
    for layer in reversed(weighted(look)):
        own = layer.gradient_norm or 0.0
        shrinking[layer.layer] = ratio(longest, own)
        longest = max(longest, own)
    return shrinking


def _newest_pair(look: HealthSampled, name: str) -> tuple[float, str, float]:
    """A layer's gradient norm, and the layer behind it that has the longest, with its norm."""
    layers = weighted(look)
    place = next(index for index, layer in enumerate(layers) if layer.layer == name)
    longest = max(layers[place:], key=lambda layer: layer.gradient_norm or 0.0)
    return layers[place].gradient_norm or 0.0, longest.layer, longest.gradient_norm or 0.0


def _overgrown(look: HealthSampled, exploded: float) -> Mapping[str, float]:
    """By what factor each layer's gradient is beyond either bound."""
    layers = weighted(look)
    last = (layers[-1].gradient_norm or 0.0) if layers else 0.0
    beyond = {}
    for layer in layers:
        own = layer.gradient_norm or 0.0
        beside_own = ratio(own, layer.parameter_norm or 0.0)
        if layer.parameter_norm:  # what begins with zeros has a gradient beyond any measure
            beyond[layer.layer] = max(beside_own / exploded, min(ratio(own, last) / GROWN, beside_own))
    return beyond


def _dead(look: HealthSampled) -> Mapping[str, float]:
    return {layer.layer: layer.dead_ratio for layer in look.layers if layer.dead_ratio is not None}


def _saturated(look: HealthSampled) -> Mapping[str, float]:
    """Without the outputs, which are meant to be sure of themselves."""
    return {layer.layer: layer.saturated_ratio for layer in look.layers[:-1] if layer.saturated_ratio is not None}


def _over(looks: tuple[HealthSampled, ...]) -> str:
    return f"in the last {len(looks)} looks (steps {looks[0].step} to {looks[-1].step})"
