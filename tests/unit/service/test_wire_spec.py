"""Specifications as messages: nothing is lost on the way, and every wrong field is named."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from chainrule.v1 import training_job_pb2 as pb
from service.errors import InvalidArgument
from service.jobs.spec import JobSpec, OnDivergence
from service.training.optimizers import Adam, Momentum, Sgd
from service.wire.job import spec_text
from service.wire.spec import parse_spec, spec_message
from tests.unit.worker.test_layers import CASES
from worker.feedback import CreditAssignment
from worker.initializers import Initializer
from worker.layers import Concatenate, Dense, Dropout, Layer, ReLU, Residual, Stack
from worker.losses import Loss, MeanSquaredError, SoftmaxCrossEntropy

decays = st.floats(0, 1, exclude_max=True)
positive = st.floats(1e-37, 1e38)
ids = st.from_regex(r"[a-z][a-z0-9-]{0,62}", fullmatch=True)
initializers = st.sampled_from([each for each in Initializer if each is not Initializer.ONES])
plain: st.SearchStrategy[Layer] = st.one_of(
    st.builds(Dense, st.integers(1, 1_000_000), initializers),
    st.builds(Dropout, decays),
    st.sampled_from([case.layer for case in CASES]),
)


def of_layers(inner: st.SearchStrategy[Layer]) -> st.SearchStrategy[Layer]:
    some = st.lists(inner, max_size=3).map(tuple)
    branches = st.lists(st.builds(Stack, some), min_size=2, max_size=3).map(tuple)
    return st.builds(Residual, some.filter(bool), some) | st.builds(Concatenate, branches)


layers: st.SearchStrategy[Layer] = st.recursive(plain, of_layers, max_leaves=5)


@st.composite
def specs(draw: st.DrawFn) -> JobSpec:
    batch_size = draw(st.integers(1, 1_000_000))
    losses: list[Loss] = [SoftmaxCrossEntropy(), MeanSquaredError()]
    shards = draw(st.integers(1, min(batch_size, 1024)))
    workers = draw(st.integers(1, shards))
    return JobSpec(
        dataset=draw(ids),
        input_column=draw(st.text(min_size=1)),
        target_column=draw(st.text(min_size=1)),
        validation_fraction=draw(decays),
        layers=tuple(draw(st.lists(layers, min_size=1, max_size=5))),
        loss=draw(st.sampled_from(losses)),
        optimizer=draw(
            st.one_of(st.just(Sgd()), st.builds(Momentum, decays), st.builds(Adam, decays, decays, positive))
        ),
        learning_rate=draw(positive),
        epochs=draw(st.integers(1, 1_000_000)),
        batch_size=batch_size,
        shards=shards,
        workers=workers,
        seed=draw(st.integers(0, 2**32 - 1)),
        min_workers=draw(st.integers(1, workers)),
        max_workers=draw(st.integers(workers, shards)),
        priority=draw(st.integers(-100, 100)),
        on_divergence=draw(st.sampled_from(OnDivergence)),
        keep_last=draw(st.integers(1, 100)),
        keep_best=draw(st.booleans()),
        shuffle_window=draw(st.none() | st.integers(0, 2**40)),
        weight_column=draw(st.text(max_size=3)),
        padding=draw(st.none() | st.floats(-1, 1)),
        credit_assignment=draw(st.sampled_from(CreditAssignment)),
    )


@given(specs())
def test_a_specification_comes_back(spec: JobSpec) -> None:
    assert parse_spec(spec_message(spec), "spec") == spec
    assert spec_text().read(spec_text().write(spec)) == spec
    assert spec_message(parse_spec(spec_message(spec), "spec")) == spec_message(spec)


def message(**fields: Any) -> pb.TrainingJobSpec:
    """The least that must be said, with some fields set, "__" standing for a dot."""
    given = pb.TrainingJobSpec()
    json_format.ParseDict(
        {
            "data": {"dataset": "datasets/flowers"},
            "network": {"layers": [{"dense": {"units": 4}}, {"relu": {}}, {"dense": {"units": 3}}]},
            "loss": {"softmaxCrossEntropy": {}},
        },
        given,
    )
    for path, value in fields.items():
        *parents, last = path.split("__")
        target: Any = given
        for parent in parents:
            target = getattr(target, parent)
        if isinstance(value, dict):
            getattr(target, last).SetInParent()
        else:
            setattr(target, last, value)
    return given


def test_defaults_are_those_of_the_contract() -> None:
    assert parse_spec(message(), "spec") == JobSpec(
        dataset="flowers",
        input_column="x",
        target_column="y",
        validation_fraction=0.2,
        layers=(Dense(4, Initializer.HE_NORMAL), ReLU(), Dense(3, Initializer.GLOROT_UNIFORM)),
        loss=SoftmaxCrossEntropy(),
        optimizer=Adam(0.9, 0.999, 1e-8),
        learning_rate=0.001,
        epochs=10,
        batch_size=64,
        shards=4,
        workers=2,
        seed=0,
        max_workers=2,
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"batch_size": 3}, {"shards": 3, "workers": 2}),
        ({"batch_size": 1}, {"shards": 1, "workers": 1}),
        ({"shards": 1}, {"workers": 1}),
        ({"optimizer__sgd": {}}, {"optimizer": Sgd(), "learning_rate": 0.01}),
        ({"optimizer__momentum": {}}, {"optimizer": Momentum(0.9), "learning_rate": 0.01}),
        ({"optimizer__momentum__momentum": 0.0}, {"optimizer": Momentum(0.0)}),
        ({"optimizer__adam__beta1": 0.0}, {"optimizer": Adam(0.0, 0.999, 1e-8), "learning_rate": 0.001}),
        ({"optimizer__learning_rate": 0.5}, {"optimizer": Adam(), "learning_rate": 0.5}),
        ({"data__validation_fraction": 0.0}, {"validation_fraction": 0.0}),
        ({"seed": 2**32 - 1}, {"seed": 2**32 - 1}),
    ],
    ids=str,
)
def test_defaults_that_follow_from_others(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    parsed = parse_spec(message(**fields), "spec")
    assert {field: getattr(parsed, field) for field in expected} == expected


@pytest.mark.parametrize("kind", ["relu", "leaky_relu", "elu", "gelu", "silu", "softplus"])
def test_before_the_relu_family_weights_start_as_he_proposed(kind: str) -> None:
    given = message()
    getattr(given.network.layers[1], kind).SetInParent()
    first = parse_spec(given, "spec").layers[0]
    assert first == Dense(4, Initializer.HE_NORMAL)


def changed(change: Callable[[pb.TrainingJobSpec], object]) -> pb.TrainingJobSpec:
    made = message()
    change(made)
    return made


ID = 'must be "datasets/<id>", where the id has 1 to 63 lower-case letters'

WRONG: list[tuple[pb.TrainingJobSpec, str, str]] = [
    (message(data__dataset=""), "data.dataset", f"is missing; {ID}"),
    (message(data__dataset="flowers"), "data.dataset", f"is 'flowers'; {ID}"),
    (message(data__dataset="datasets/../x"), "data.dataset", f"is 'datasets/../x'; {ID}"),
    (message(data__dataset="jobs/flowers"), "data.dataset", f"is 'jobs/flowers'; {ID}"),
    (message(data__dataset="datasets/Flowers"), "data.dataset", f"is 'datasets/Flowers'; {ID}"),
    (message(data__validation_fraction=-0.1), "data.validation_fraction", "is -0.1; must be 0 up to, but not"),
    (message(data__validation_fraction=1.0), "data.validation_fraction", "is 1; must be 0 up to, but not including, 1"),
    (message(data__validation_fraction=math.nan), "data.validation_fraction", "is nan; must be 0 up to"),
    (changed(lambda m: m.network.ClearField("layers")), "network.layers", "has 0 layers; must have 1 to 1,000"),
    (
        changed(lambda m: m.network.layers.extend([m.network.layers[1]] * 998)),
        "network.layers",
        "has 1001 layers; must",
    ),
    (
        changed(lambda m: m.network.layers[1].Clear()),
        "network.layers[1]",
        "says nothing; set one of dense, relu, tanh, sigmoid",
    ),
    (
        changed(lambda m: setattr(m.network.layers[0].dense, "units", 0)),
        "network.layers[0].dense.units",
        "is 0; must be 1 to 1,000,000",
    ),
    (
        changed(lambda m: setattr(m.network.layers[2].dense, "units", -5)),
        "network.layers[2].dense.units",
        "is -5; must be 1 to 1,000,000",
    ),
    (
        changed(lambda m: setattr(m.network.layers[2].dense, "units", 1_000_001)),
        "network.layers[2].dense.units",
        "is 1000001; must be 1 to 1,000,000",
    ),
    (
        changed(lambda m: setattr(m.network.layers[0].dense, "initializer", 99)),
        "network.layers[0].dense.initializer",
        "has the unknown value 99; one of GLOROT_UNIFORM, GLOROT_NORMAL, HE_UNIFORM, HE_NORMAL",
    ),
    (
        changed(lambda m: m.network.layers[1].residual.layers.add().dropout.__setattr__("rate", 1.0)),
        "network.layers[1].residual.layers[0].dropout.rate",
        "is 1; must be 0 up to, but not including, 1",
    ),
    (
        changed(lambda m: m.network.layers[1].concatenate.branches.add().layers.add()),
        "network.layers[1].concatenate.branches[0].layers[0]",
        "says nothing; set one of dense",
    ),
    (
        changed(lambda m: m.network.layers[1].concatenate.branches.add()),
        "network.layers[1].concatenate.branches",
        "has 1; must have at least 2",
    ),
    (
        changed(lambda m: m.network.layers[1].residual.SetInParent()),
        "network.layers[1].residual.layers",
        "is empty; a residual block needs at least one layer",
    ),
    (
        changed(lambda m: m.ClearField("loss")),
        "loss",
        "says nothing; set one of softmax_cross_entropy, mean_squared_error",
    ),
    (message(optimizer__learning_rate=0.0), "optimizer.learning_rate", "is 0; must be above 0"),
    (message(optimizer__learning_rate=-0.1), "optimizer.learning_rate", "is -0.1; must be above 0"),
    (
        message(optimizer__learning_rate=1e-50),
        "optimizer.learning_rate",
        "is 1e-50; must be above 0, and between 1e-37",
    ),
    (message(optimizer__learning_rate=1e50), "optimizer.learning_rate", "is 1e+50; must be above 0, and between 1e-37"),
    (message(optimizer__learning_rate=math.nan), "optimizer.learning_rate", "is nan; must be above 0"),
    (message(optimizer__learning_rate=math.inf), "optimizer.learning_rate", "is inf; must be above 0"),
    (message(optimizer__momentum__momentum=1.0), "optimizer.momentum.momentum", "is 1; must be 0 up to, but not"),
    (message(optimizer__adam__beta1=-1.0), "optimizer.adam.beta1", "is -1; must be 0 up to, but not including, 1"),
    (message(optimizer__adam__beta2=1.0), "optimizer.adam.beta2", "is 1; must be 0 up to, but not including, 1"),
    (message(optimizer__adam__epsilon=0.0), "optimizer.adam.epsilon", "is 0; must be above 0"),
    (
        message(credit_assignment=9),
        "credit_assignment",
        "has the unknown value 9; one of BACKPROPAGATION, FEEDBACK_ALIGNMENT, DIRECT_FEEDBACK_ALIGNMENT",
    ),
    (message(epochs=0), "epochs", "is 0; must be 1 to 1,000,000"),
    (message(epochs=1_000_001), "epochs", "is 1000001; must be 1 to 1,000,000"),
    (message(batch_size=0), "batch_size", "is 0; must be 1 to 1,000,000"),
    (message(batch_size=-1), "batch_size", "is -1; must be 1 to 1,000,000"),
    (message(shards=0), "shards", "is 0; must be 1 to 64: no more than batch_size"),
    (message(shards=-3), "shards", "is -3; must be 1 to 64"),
    (message(shards=65), "shards", "is 65; must be 1 to 64: no more than batch_size"),
    (message(batch_size=9999, shards=1025), "shards", "is 1025; must be 1 to 1,024"),
    (message(workers=0), "workers", "is 0; must be 1 to 4: a worker needs a shard"),
    (message(workers=-2), "workers", "is -2; must be 1 to 4"),
    (message(shards=3, workers=4), "workers", "is 4; must be 1 to 3: a worker needs a shard"),
]


@pytest.mark.parametrize(("wrong", "field", "told"), WRONG, ids=[f"{field}: {told[:30]}" for _, field, told in WRONG])
def test_a_wrong_field_is_named(wrong: pb.TrainingJobSpec, field: str, told: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_spec(wrong, "job.spec")
    (violation,) = refused.value.violations
    assert violation.field == f"job.spec.{field}"
    assert violation.description.startswith(told)


def test_all_wrong_fields_are_named_at_once() -> None:
    wrong = message(
        data__dataset="x",
        data__validation_fraction=2.0,
        optimizer__learning_rate=-1.0,
        optimizer__momentum__momentum=7.0,
        epochs=0,
        batch_size=0,
        shards=0,
        workers=0,
    )
    wrong.loss.Clear()
    wrong.network.layers[0].dense.units = 0
    wrong.network.layers[1].Clear()
    with pytest.raises(InvalidArgument) as refused:
        parse_spec(wrong, "spec")
    fields = [violation.field.removeprefix("spec.") for violation in refused.value.violations]
    assert fields == [
        "data.dataset",
        "data.validation_fraction",
        "network.layers[0].dense.units",
        "network.layers[1]",
        "loss",
        "optimizer.momentum.momentum",
        "optimizer.learning_rate",
        "epochs",
        "batch_size",
        "shards",
        "workers",
    ]


def test_of_nothing_all_that_is_required_is_named() -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_spec(pb.TrainingJobSpec(), "spec")
    assert [v.field for v in refused.value.violations] == ["spec.data.dataset", "spec.network.layers", "spec.loss"]
