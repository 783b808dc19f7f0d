"""Jobs made to suffer from each of the troubles, and beside each the same one in good health."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from service.jobs.health import Trouble
from service.jobs.spec import JobSpec, OnDivergence
from service.training.optimizers import Adam, Sgd
from tests.unit.service.examples import spec
from worker.arrays import Array
from worker.initializers import Initializer
from worker.layers import Dense, Layer, LeakyReLU, ReLU, Sigmoid, Tanh
from worker.losses import MeanSquaredError
from worker.task import Data

FEATURES, CLASSES = 8, 4


@dataclass(frozen=True)
class Plan:
    """A job, and what it learns from."""

    spec: JobSpec
    data: Data
    rows: int
    slow: float = 1.0
    """How many times as long as the other the second worker takes."""


def plan(data: Data, layers: tuple[Layer, ...], **changes: object) -> Plan:
    """A job of 30 epochs by plain gradient descent, with some fields changed."""
    shown = {"optimizer": Sgd(), "learning_rate": 0.1, "epochs": 30, "batch_size": 32, "shards": 2, "workers": 2}
    return Plan(spec(**{**shown, "layers": layers, **changes}), data, len(np.asarray(data.targets)))


def groups(
    rows: int = 320,
    apart: float = 2.0,
    weights: tuple[float, ...] = (1, 1, 1, 1),
    scale: float = 1.0,
    shift: float = 0.0,
) -> Data:
    """Rows of four classes, each around a point of its own, so far `apart`; with so large a share of rows each."""
    random = np.random.default_rng(5)
    classes = random.choice(CLASSES, rows, p=np.array(weights) / sum(weights))
    middles = apart * random.standard_normal((CLASSES, FEATURES))
    inputs = scale / (1 + apart) * (middles[classes] + random.standard_normal((rows, FEATURES)))
    return Data((shift + inputs).astype(np.float32), classes)


def noise(rows: int) -> Data:
    """Rows whose classes have nothing to do with them."""
    random = np.random.default_rng(6)
    return Data(random.standard_normal((rows, FEATURES)).astype(np.float32), random.integers(CLASSES, size=rows))


def curve(of: Callable[[Array], Array], rows: int = 320) -> Data:
    """Rows of one number to be told, a function of the row."""
    random = np.random.default_rng(7)
    inputs = random.standard_normal((rows, FEATURES))
    return Data(inputs.astype(np.float32), of(inputs)[:, np.newaxis].astype(np.float32))


def deep(activation: Layer, initializer: Initializer, depth: int = 8, width: int = 24) -> tuple[Layer, ...]:
    hidden = [each for _ in range(depth) for each in (Dense(width, initializer), activation)]
    return (*hidden, Dense(CLASSES))


def shallow(activation: Layer, width: int = 32) -> tuple[Layer, ...]:
    return (Dense(width, Initializer.HE_NORMAL), activation, Dense(CLASSES))


RELU, GLOROT, HE = ReLU(), Initializer.GLOROT_UNIFORM, Initializer.HE_NORMAL
LINEAR, SQUARED = (Dense(1),), MeanSquaredError()
EASY, MIXED = groups(), groups(640, apart=0.7)


@dataclass(frozen=True)
class Case:
    """A trouble, a job that has it, and a healthy one of the same kind."""

    ill: Plan
    well: Plan


def of(ill: Plan, **mended: object) -> Case:
    """The healthy job is the ill one with some fields of its specification changed, or with other data."""
    data = mended.pop("data", ill.data)
    assert isinstance(data, Data)
    return Case(ill, Plan(replace(ill.spec, **mended), data, ill.rows))  # type: ignore[arg-type]


CASES: Mapping[Trouble, Case] = {
    Trouble.VANISHING_GRADIENT: of(plan(EASY, deep(Sigmoid(), GLOROT), epochs=12), layers=deep(RELU, HE)),
    Trouble.EXPLODING_GRADIENT: of(
        plan(EASY, deep(LeakyReLU(0.9), HE, depth=16), learning_rate=1e-6, epochs=12),
        layers=deep(LeakyReLU(0.9), Initializer.ORTHOGONAL, depth=16),
        learning_rate=0.01,
    ),
    Trouble.DEAD_UNITS: of(
        plan(groups(shift=3), shallow(RELU), learning_rate=1.0, epochs=12), data=EASY, learning_rate=0.1
    ),
    Trouble.SATURATION: of(plan(groups(scale=30), shallow(Tanh()), learning_rate=0.01, epochs=12), data=EASY),
    Trouble.LEARNING_RATE_TOO_HIGH: of(plan(MIXED, shallow(Tanh()), learning_rate=5.0), learning_rate=0.1),
    Trouble.LEARNING_RATE_TOO_LOW: of(plan(EASY, shallow(RELU), learning_rate=1e-6), learning_rate=0.1),
    Trouble.OVERFITTING: of(plan(noise(80), shallow(RELU, 128), optimizer=Adam(), learning_rate=0.01), data=groups(80)),
    Trouble.UNDERFITTING: of(plan(noise(640), (Dense(CLASSES),), learning_rate=0.03), data=groups(640)),
    Trouble.PLATEAU: of(
        plan(curve(lambda x: x[:, 0] + 0.5 * x[:, 1] * x[:, 2]), LINEAR, loss=SQUARED),
        data=curve(lambda x: x[:, 0]),
    ),
    Trouble.DIVERGENCE: of(
        plan(
            curve(lambda x: x[:, 0]),
            LINEAR,
            loss=SQUARED,
            learning_rate=2.0,
            on_divergence=OnDivergence.ROLLBACK,
        ),
        learning_rate=0.05,
    ),
    Trouble.CLASS_IMBALANCE: of(
        plan(groups(640, apart=0.3, weights=(90, 3, 3, 3)), shallow(RELU), learning_rate=0.05), data=groups(640)
    ),
    Trouble.STRAGGLERS: Case(
        replace(plan(EASY, shallow(RELU), epochs=12), slow=3.0), replace(plan(EASY, shallow(RELU), epochs=12), slow=1.2)
    ),
}
