"""Specifications as messages: nothing is lost on the way, and every wrong field is named."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given, settings

from chainrule.v1 import training_job_pb2 as pb
from service.errors import InvalidArgument
from service.jobs.spec import JobSpec, Precision
from service.training.optimizers import Adagrad, Adam, AdamW, Momentum, RMSprop, Sgd
from service.training.regularization import Regularization
from service.training.schedules import (
    ConstantRate,
    CosineDecay,
    ExponentialDecay,
    OneCycle,
    ReduceOnPlateau,
    Schedule,
    WarmUp,
)
from service.training.stopping import EarlyStopping
from service.wire.job import spec_text
from service.wire.spec import parse_spec, spec_message
from tests.unit.service.specifications import specs
from worker.initializers import Initializer
from worker.layers import Dense, ReLU
from worker.losses import SoftmaxCrossEntropy


@settings(deadline=None, max_examples=60)
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
        ({"optimizer__adamw": {}}, {"optimizer": AdamW(0.9, 0.999, 1e-8, 0.01), "learning_rate": 0.001}),
        ({"optimizer__rmsprop": {}}, {"optimizer": RMSprop(0.99, 1e-8, 0.0, centered=False), "learning_rate": 0.01}),
        ({"optimizer__adagrad": {}}, {"optimizer": Adagrad(1e-10), "learning_rate": 0.01}),
        ({"optimizer__momentum__nesterov": True}, {"optimizer": Momentum(0.9, nesterov=True)}),
        ({"optimizer__schedule__cosine": {}}, {"schedule": Schedule(CosineDecay(0.0))}),
        ({"optimizer__schedule__exponential": {}}, {"schedule": Schedule(ExponentialDecay(0.95))}),
        ({"optimizer__schedule__one_cycle": {}}, {"schedule": Schedule(OneCycle(0.3, 0.04, 4e-6))}),
        (
            {"optimizer__schedule__reduce_on_plateau": {}},
            {"schedule": Schedule(ReduceOnPlateau(0.1, 10, 0.0, 0.0))},
        ),
        ({"optimizer__schedule__warm_up__steps": 5}, {"schedule": Schedule(ConstantRate(), WarmUp(5, None, 0.0))}),
        ({"optimizer__l2": 0.1}, {"regularization": Regularization(l2=0.1)}),
        ({"early_stopping": {}}, {"early_stopping": EarlyStopping(5, 0.0, "")}),
        ({"precision": pb.TrainingJobSpec.FLOAT64}, {"precision": Precision.FLOAT64}),
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
    (message(optimizer__momentum__momentum=-0.5), "optimizer.momentum.momentum", "is -0.5; must be 0 up to, but not"),
    (message(optimizer__rmsprop__decay=1.0), "optimizer.rmsprop.decay", "is 1; must be 0 up to, but not including, 1"),
    (message(optimizer__rmsprop__momentum=2.0), "optimizer.rmsprop.momentum", "is 2; must be 0 up to, but not"),
    (message(optimizer__rmsprop__epsilon=0.0), "optimizer.rmsprop.epsilon", "is 0; must be above 0"),
    (message(optimizer__adagrad__epsilon=-1.0), "optimizer.adagrad.epsilon", "is -1; must be above 0"),
    (message(optimizer__adamw__beta1=1.0), "optimizer.adamw.beta1", "is 1; must be 0 up to, but not including, 1"),
    (message(optimizer__adamw__weight_decay=-1.0), "optimizer.adamw.weight_decay", "is -1; must be 0, or between"),
    (
        message(optimizer__adamw__weight_decay=200.0, optimizer__learning_rate=0.1),
        "optimizer.adamw.weight_decay",
        "is 200, which at a learning rate of 0.1 turns weights beyond 0; must be at most 10",
    ),
    (message(optimizer__adamw={}, optimizer__weight_decay=0.1), "optimizer.weight_decay", "can't be set with adamw"),
    (message(optimizer__weight_decay=2000.0), "optimizer.weight_decay", "is 2000, which at a learning rate of 0.001"),
    (message(optimizer__weight_decay=math.nan), "optimizer.weight_decay", "is nan; must be 0, or between"),
    (message(optimizer__clip_norm=0.0), "optimizer.clip_norm", "is 0; must be above 0"),
    (message(optimizer__clip_value=math.inf), "optimizer.clip_value", "is inf; must be above 0"),
    (message(optimizer__l1=-0.1), "optimizer.l1", "is -0.1; must be 0, or between"),
    (message(optimizer__l2=1e300), "optimizer.l2", "is 1e+300; must be 0, or between"),
    (message(optimizer__accumulate=0), "optimizer.accumulate", "is 0; must be 1 to 1,000,000"),
    (message(optimizer__accumulate=1_000_001), "optimizer.accumulate", "is 1000001; must be 1 to 1,000,000"),
    (message(optimizer__schedule__step={}), "optimizer.schedule.step.every", "must be set, or milestones"),
    (message(optimizer__schedule__step__every=0), "optimizer.schedule.step.every", "is 0; must be 1 to 1,000,000"),
    (
        changed(lambda m: m.optimizer.schedule.step.milestones.extend([3, 2])),
        "optimizer.schedule.step.milestones",
        "must ascend",
    ),
    (
        message(optimizer__schedule__exponential__factor=0.0),
        "optimizer.schedule.exponential.factor",
        "is 0; must be above 0, up to 1",
    ),
    (message(optimizer__schedule__cosine__floor=2.0), "optimizer.schedule.cosine.floor", "is 2; must be 0 to 1"),
    (
        message(optimizer__schedule__one_cycle__rising=-1.0),
        "optimizer.schedule.one_cycle.rising",
        "is -1; must be 0 to",
    ),
    (
        message(optimizer__schedule__reduce_on_plateau__patience=0),
        "optimizer.schedule.reduce_on_plateau.patience",
        "is 0; must be 1 to 1,000,000",
    ),
    (message(optimizer__schedule__warm_up={}), "optimizer.schedule.warm_up.steps", "must be set, or epochs"),
    (message(optimizer__schedule__warm_up__epochs=-1.0), "optimizer.schedule.warm_up.epochs", "is -1; must be above 0"),
    (
        message(optimizer__schedule__one_cycle={}, optimizer__schedule__warm_up__steps=3),
        "optimizer.schedule.warm_up",
        "can't be set with one_cycle",
    ),
    (message(early_stopping__patience=0), "early_stopping.patience", "is 0; must be 1 to 1,000,000"),
    (message(early_stopping__min_delta=-1.0), "early_stopping.min_delta", "is -1; must be 0, or between"),
    (message(early_stopping={}, data__validation_fraction=0.0), "early_stopping", "looks at held-out rows; data."),
    (
        message(optimizer__schedule__reduce_on_plateau={}, data__validation_fraction=0.0),
        "optimizer.schedule.reduce_on_plateau",
        "looks at held-out rows; data.validation_fraction must be above 0",
    ),
    (message(precision=9), "precision", "has the unknown value 9; FLOAT32 or FLOAT64"),
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
    (message(workers=2, min_workers=3), "min_workers", "is 3; must be 1 to 2: no more than workers"),
    (
        message(workers=3, max_workers=2),
        "max_workers",
        "is 2; must be 3 to 4: no fewer than workers, and a worker needs",
    ),
    (
        message(workers=3, max_workers=5),
        "max_workers",
        "is 5; must be 3 to 4: no fewer than workers, and a worker needs",
    ),
    (message(shards=2, workers=4, max_workers=2), "workers", "is 4; must be 1 to 2"),
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
