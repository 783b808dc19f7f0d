"""What a job is asked to do, parsed and complete.

wire/spec.py makes it from a request and checks every field; from then on the types are trusted.
"""

from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np

from service.data.preparation import Preparation
from service.training.optimizers import AdamW, Optimizer
from service.training.regularization import Regularization
from service.training.schedules import Schedule
from service.training.stopping import EarlyStopping
from worker.feedback import CreditAssignment
from worker.layers import Layer
from worker.losses import Loss
from worker.network import Traits
from worker.policy import Environment
from worker.shards import Shards, Split


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

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns it uses: inputs, targets, and weights if there are any."""
        if self.environment is not None:
            return ()
        return (self.input_column, self.target_column, *([self.weight_column] if self.weight_column else []))

    def shards_of(self, rows: int) -> Shards:
        """How a dataset of `rows` rows is dealt out."""
        window = self.shuffle_window or 0
        return Shards(rows, self.validation_fraction, self.batch_size, self.shards, self.seed, window, self.split)
