"""Any specification of a job, for hypothesis to draw."""

from dataclasses import replace

from hypothesis import strategies as st

from service.data.classes import ClassNames
from service.data.features import AsIs, OneHot, Scale, Standardise
from service.data.preparation import Feature, Preparation
from service.data.windows import Windows
from service.data.words import Tokenise
from service.jobs.spec import JobSpec, OnDivergence, Precision
from service.training.optimizers import Adagrad, Adam, AdamW, Momentum, Optimizer, RMSprop, Sgd
from service.training.regularization import Regularization
from service.training.schedules import (
    ConstantRate,
    CosineDecay,
    ExponentialDecay,
    OneCycle,
    ReduceOnPlateau,
    Schedule,
    StepDecay,
    WarmUp,
)
from service.training.stopping import EarlyStopping
from tests.unit.worker.test_layers import CASES
from worker.feedback import CreditAssignment
from worker.initializers import Initializer
from worker.layers import Concatenate, Dense, Dropout, Layer, Residual, Stack
from worker.losses import (
    BinaryCrossEntropy,
    Hinge,
    Huber,
    Loss,
    MeanAbsoluteError,
    MeanSquaredError,
    Rivals,
    SoftmaxCrossEntropy,
)
from worker.network import Traits
from worker.shards import Split

decays = st.floats(0, 1, exclude_max=True)
positive = st.floats(1e-37, 1e38)
ids = st.from_regex(r"[a-z][a-z0-9-]{0,62}", fullmatch=True)
layer_names = st.just("") | st.from_regex(r"[a-z0-9_.-]{1,63}", fullmatch=True)
scales = st.just(1.0) | st.floats(1e-6, 1e6)
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
strengths = st.just(0.0) | st.floats(1e-37, 1)
optimizers: st.SearchStrategy[Optimizer] = st.one_of(
    st.just(Sgd()),
    st.builds(Momentum, decays, st.booleans()),
    st.builds(Adam, decays, decays, positive),
    st.builds(AdamW, decays, decays, positive, strengths),
    st.builds(Adagrad, positive),
    st.builds(RMSprop, decays, positive, decays, st.booleans()),
)
features: st.SearchStrategy[Feature] = st.one_of(
    st.builds(Feature, st.just(("*",)), st.builds(Standardise), st.none(), st.booleans()),
    st.builds(Feature, st.just(("p", "q")), st.builds(Scale, strengths, positive), positive),
    st.builds(Feature, st.just(("r",)), st.sampled_from([AsIs(), OneHot()])),
)
preparations = st.builds(
    Preparation,
    st.just(()) | st.just((Feature(("t",), Tokenise(50, 7)),)) | features.map(lambda feature: (feature,)),
    st.sampled_from([ClassNames(), ClassNames(("b", "a")), Standardise()]),
)
rows = st.integers(1, 10_000)
windows = st.builds(
    Preparation, features.map(lambda feature: (feature,)), st.none(), st.builds(Windows, rows, rows, rows)
)
shares, counts = st.floats(0, 1), st.integers(1, 1_000_000)
factors = st.floats(0, 1, exclude_min=True)
milestones = st.sets(counts, min_size=1, max_size=4).map(sorted).map(tuple)
warm_ups = st.builds(WarmUp, counts, st.none(), shares) | st.builds(WarmUp, st.none(), positive, shares)
schedules = st.one_of(
    st.builds(
        Schedule,
        st.one_of(
            st.just(ConstantRate()),
            st.builds(StepDecay, counts, st.just(()), factors),
            st.builds(StepDecay, st.none(), milestones, factors),
            st.builds(ExponentialDecay, factors),
            st.builds(CosineDecay, shares),
            st.builds(ReduceOnPlateau, factors, counts, strengths, shares),
        ),
        st.none() | warm_ups,
    ),
    st.builds(Schedule, st.builds(OneCycle, shares, shares, shares)),
)
regularizations = st.builds(
    Regularization, st.none() | positive, st.none() | positive, strengths, strengths, st.just(0.0)
)


@st.composite
def specs(draw: st.DrawFn) -> JobSpec:
    batch_size = draw(st.integers(1, 1_000_000))
    losses: list[Loss] = [
        SoftmaxCrossEntropy(),
        SoftmaxCrossEntropy((0.5, 2.0, 0.0), 0.1),
        MeanSquaredError(),
        BinaryCrossEntropy(2.5, 0.2),
        MeanAbsoluteError(),
        Huber(0.3),
        Hinge(),
        Hinge(Rivals.ALL),
    ]
    network = tuple(draw(st.lists(layers, min_size=1, max_size=5)))
    names = draw(st.lists(layer_names, min_size=len(network), max_size=len(network), unique_by=lambda n: n or object()))
    traits = tuple(Traits(name, draw(st.booleans()), draw(scales), draw(st.booleans())) for name in names)
    shards = draw(st.integers(1, min(batch_size, 1024)))
    workers = draw(st.integers(1, shards))
    spec = JobSpec(
        dataset=draw(ids),
        input_column=draw(st.text(min_size=4)),
        target_column=draw(st.text(min_size=1, max_size=3)),
        validation_fraction=draw(st.floats(0, 1, exclude_min=True, exclude_max=True)),
        layers=network,
        traits=traits if any(each != Traits() for each in traits) else (),
        initial_model=draw(st.just("") | ids),
        loss=draw(st.sampled_from(losses)),
        optimizer=draw(optimizers),
        learning_rate=draw(st.floats(1e-37, 1)),
        regularization=draw(regularizations),
        schedule=draw(schedules),
        accumulate=draw(counts),
        early_stopping=draw(st.none() | st.builds(EarlyStopping, counts, strengths, st.text())),
        precision=draw(st.sampled_from(Precision)),
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
        preparation=draw(st.none() | preparations),
        split=draw(st.sampled_from(Split)),
    )
    if not draw(st.booleans()):
        return spec
    return replace(spec, preparation=draw(windows), weight_column="", split=Split.LAST)
