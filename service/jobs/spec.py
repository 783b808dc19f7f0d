"""What a job is asked to do, parsed and complete.

wire/spec.py makes it from a request and checks every field; from then on the types are trusted.
"""

import math
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np

from service.data.preparation import Preparation
from service.training.optimizers import AdamW, Optimizer
from service.training.regularization import Regularization
from service.training.schedules import Schedule
from service.training.stopping import EarlyStopping
from worker.arrays import Shape
from worker.errors import InvalidValue
from worker.feedback import CreditAssignment
from worker.layers import Layer
from worker.losses import Loss
from worker.network import Traits
from worker.policy import Environment
from worker.shards import Shards, Split

MOST_AXES, MOST_NUMBERS, MOST_STEPS = 8, 4 << 20, 10_000
"""Of a row that a client sends; and steps of an epoch, which a client may have to keep the rows of."""


class OnDivergence(Enum):
    """What becomes of a job whose loss or gradient is NaN or infinite, named as in the contract."""

    FAIL = "FAIL"
    ROLLBACK = "ROLLBACK"


class Precision(Enum):
    """What numbers are kept in, named as in the contract."""

    FLOAT32 = "FLOAT32"
    FLOAT64 = "FLOAT64"

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """NumPy's word for it."""
        return np.dtype(self.value.lower())


@dataclass(frozen=True)
class Online:
    """What rows are like that a client sends while the job runs."""

    input_shape: Shape = ()
    target_shape: Shape = ()
    steps_per_epoch: int = 100

    def __post_init__(self) -> None:
        for name in ("input_shape", "target_shape"):
            shape = getattr(self, name)
            if len(shape) > MOST_AXES or not all(1 <= size <= MOST_NUMBERS for size in shape):
                shown = ", ".join(map(str, shape[: MOST_AXES + 1]))
                raise InvalidValue(
                    name, f"is [{shown}]; must have at most {MOST_AXES} axes, each 1 to {MOST_NUMBERS:,} long"
                )
            if math.prod(shape) > MOST_NUMBERS:
                raise InvalidValue(
                    name, f"is {list(shape)}, {math.prod(shape):,} numbers a row; must be at most {MOST_NUMBERS:,}"
                )
        if not 1 <= self.steps_per_epoch <= MOST_STEPS:
            raise InvalidValue("steps_per_epoch", f"is {self.steps_per_epoch:,}; must be 1 to {MOST_STEPS:,}")


@dataclass(frozen=True)
class JobSpec:
    """A training job's specification, every default filled in."""

    dataset: str
    input_column: str
    target_column: str
    validation_fraction: float
    layers: tuple[Layer, ...]
    loss: Loss | None
    """None where there is an environment."""
    optimizer: Optimizer
    learning_rate: float
    epochs: int
    batch_size: int
    shards: int
    workers: int
    seed: int
    min_workers: int = 1
    max_workers: int = 1
    priority: int = 0
    on_divergence: OnDivergence = OnDivergence.FAIL
    keep_last: int = 2
    keep_best: bool = False
    shuffle_window: int | None = None
    """None where it is left to the service, which fills it in before there is a job."""
    weight_column: str = ""
    padding: float | None = None
    credit_assignment: CreditAssignment = CreditAssignment.BACKPROPAGATION
    regularization: Regularization = field(default_factory=Regularization)
    schedule: Schedule = field(default_factory=Schedule)
    accumulate: int = 1
    """How many steps share an update."""
    early_stopping: EarlyStopping | None = None
    precision: Precision = Precision.FLOAT32

    @property
    def regularized(self) -> Regularization:
        """The regularization, with the weight decay that is the optimizer's own."""
        decay = self.optimizer.weight_decay if isinstance(self.optimizer, AdamW) else self.regularization.weight_decay
        return replace(self.regularization, weight_decay=decay)

    traits: tuple[Traits, ...] = ()
    """How each layer takes part; or nothing, where all do as they do by default."""
    environment: Environment | None = None
    """What to act in, in place of a dataset."""
    initial_model: str = ""
    """The id of the model whose parameters it starts with; "" if it starts with none. Before there is a job, it may be
    "@" and an alias."""
    preparation: Preparation | None = None
    """How columns become what it learns from; None where they are taken as they are."""
    split: Split = Split.RANDOM
    online: Online | None = None
    """Set where a client sends the rows, in place of a dataset."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the dataset's columns it uses: inputs, targets, and weights if there are any."""
        if self.environment is not None or self.online is not None:
            return ()
        return self.arriving

    @property
    def arriving(self) -> tuple[str, ...]:
        """The names of inputs, targets, and weights if there are any, wherever they come from."""
        return (self.input_column, self.target_column, *([self.weight_column] if self.weight_column else []))

    def shards_of(self, rows: int) -> Shards:
        """How a dataset of `rows` rows is dealt out."""
        window = self.shuffle_window or 0
        return Shards(rows, self.validation_fraction, self.batch_size, self.shards, self.seed, window, self.split)
