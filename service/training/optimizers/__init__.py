"""The optimizers, one idea a file, and the table of them.

A new one is a frozen dataclass, a message of the same field names in the contract, and a row here.
"""

from collections.abc import Mapping
from types import MappingProxyType

from service.training.optimizers.adam import Adam, AdamW
from service.training.optimizers.descent import Momentum, Sgd
from service.training.optimizers.optimizer import Carried, Optimizer
from service.training.optimizers.scaled import Adagrad, RMSprop

__all__ = ["OPTIMIZERS", "Adagrad", "Adam", "AdamW", "Carried", "Momentum", "Optimizer", "RMSprop", "Sgd"]

OPTIMIZERS: Mapping[str, type[Optimizer]] = MappingProxyType(
    {"sgd": Sgd, "momentum": Momentum, "adam": Adam, "rmsprop": RMSprop, "adagrad": Adagrad, "adamw": AdamW}
)
