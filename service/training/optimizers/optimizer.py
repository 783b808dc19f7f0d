"""How an averaged gradient becomes an update.

An optimizer is a rule for one parameter at a time: it sees a slice of the parameters, of their gradient and of the
vectors it carries from update to update, and changes them in place. So it can be applied to any slice, in any order, on
any number of threads, with the same bits; and what it carries is plain arrays, so that a checkpoint is just data.
"""

from collections.abc import Mapping
from typing import ClassVar, Protocol, TypeAlias

from worker.arrays import Array

Carried: TypeAlias = Mapping[str, Array]
"""What an optimizer carries from update to update: vectors as long as the parameters, by name. They start at zero."""


class Optimizer(Protocol):
    """A rule. Implementations are frozen dataclasses of hyper-parameters."""

    default_learning_rate: ClassVar[float]

    @property
    def carries(self) -> tuple[str, ...]:
        """The names of the vectors it carries."""

    def update(self, params: Array, gradient: Array, carried: Carried, rate: float, step: int, scratch: Array) -> None:
        """Makes update number `step`, counted from 0, with learning rate `rate`, in place.

        All arrays are (n,), slices of the same place. `gradient` and `scratch` may be overwritten.
        """
