"""Networks as clients write them: defaults of layers, and initial weights where the choice was left to the service."""

from typing import Any

import pytest
from google.protobuf import json_format

from chainrule.v1 import network_pb2 as pb
from service.errors import InvalidArgument, Violations
from service.wire.network import NORMALIZATIONS, RECTIFIED, parse_layers
from worker.initializers import Initializer
from worker.layers import LAYERS, Conv1d, Conv2d, GlobalPool, Layer, Padding, Pool2d, Pooling, Rescale, Reshape

HE, GLOROT = Initializer.HE_NORMAL, Initializer.GLOROT_UNIFORM
CONVOLUTION = {"conv2d": {"filters": 4, "kernelSize": [3]}}


def parsed(*layers: dict[str, Any]) -> tuple[Layer, ...]:
    violations = Violations()
    found = parse_layers(json_format.ParseDict({"layers": list(layers)}, pb.Network()), "network", violations)
    violations.raise_any()
    return found


@pytest.mark.parametrize(
    ("written", "layer"),
    [
        (CONVOLUTION, Conv2d(4, (3,), (1,), Padding.VALID, (), (1,), 1, True, GLOROT)),
        (
            {"conv1d": {"filters": 2, "kernelSize": [5], "padding": "SAME", "bias": False, "groups": 2, "stride": [3]}},
            Conv1d(2, (5,), (3,), Padding.SAME, groups=2, bias=False),
        ),
        ({"pool2d": {}}, Pool2d(Pooling.MAX, (2,), ())),
        ({"pool2d": {"function": "AVERAGE", "poolSize": [3, 2], "stride": [1]}}, Pool2d(Pooling.AVERAGE, (3, 2), (1,))),
        ({"globalPool": {}}, GlobalPool(Pooling.AVERAGE)),
        ({"globalPool": {"function": "MAX"}}, GlobalPool(Pooling.MAX)),
        ({"reshape": {"shape": [28, -1, 1]}}, Reshape((28, -1, 1))),
        ({"rescale": {"scale": [0.5, 2]}}, Rescale((0.5, 2.0), (0.0,))),
    ],
    ids=str,
)
def test_what_is_not_said_is_the_default(written: dict[str, Any], layer: Layer) -> None:
    assert parsed(written) == (layer,)


@pytest.mark.parametrize(
    ("after", "initializer"),
    [
        ([], GLOROT),
        ([{"relu": {}}], HE),
        ([{"tanh": {}}, {"relu": {}}], GLOROT),
        ([{"pool2d": {}}, {"relu": {}}], GLOROT),
        ([CONVOLUTION, {"relu": {}}], GLOROT),
    ],
    ids=str,
)
def test_a_convolution_starts_by_what_follows_it(after: list[dict[str, Any]], initializer: Initializer) -> None:
    first = parsed(CONVOLUTION, *after)[0]
    assert isinstance(first, Conv2d)
    assert first.initializer is initializer


@pytest.mark.parametrize("normalization", [name for name in NORMALIZATIONS if name in LAYERS])
def test_a_normalization_in_between_changes_nothing(normalization: str) -> None:
    for after, initializer in (("relu", HE), ("tanh", GLOROT)):
        fields = {"groups": 1} if normalization == "group_norm" else {}
        first = parsed(CONVOLUTION, {normalization: fields}, {after: {}})[0]
        assert isinstance(first, Conv2d)
        assert first.initializer is initializer


def test_what_was_said_stays() -> None:
    said = {"conv2d": {"filters": 4, "kernelSize": [3], "initializer": "ORTHOGONAL"}}
    first = parsed(said, {"relu": {}})[0]
    assert isinstance(first, Conv2d)
    assert first.initializer is Initializer.ORTHOGONAL


def test_the_relu_family_is_of_the_contract() -> None:
    assert set(RECTIFIED) <= set(LAYERS)


def test_a_missing_kernel_is_named() -> None:
    violations = Violations()
    parse_layers(json_format.ParseDict({"layers": [{"conv2d": {"filters": 4}}]}, pb.Network()), "network", violations)
    with pytest.raises(InvalidArgument, match="kernel_size"):
        violations.raise_any()
