"""What a job is asked to do, parsed and complete.

wire/spec.py makes it from a request and checks every field; from then on the types are trusted.
"""

from dataclasses import dataclass

from service.training.optimizers import Optimizer
from worker.layers import Layer
from worker.losses import Loss


@dataclass(frozen=True)
class JobSpec:
    """A training job's specification, every default filled in."""

    dataset: str
    input_column: str
    target_column: str
    validation_fraction: float
    layers: tuple[Layer, ...]
    loss: Loss
    optimizer: Optimizer
    learning_rate: float
    epochs: int
    batch_size: int
    shards: int
    workers: int
    seed: int
