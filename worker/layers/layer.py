"""What a layer is: hyper-parameters without arrays, and a forward that returns its own backward.

The backward is a closure over what the forward computed, so that nothing has to be stored on the layer and the same
layer can be used by any number of threads at once (the form is thinc's and autograd's).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, cast, runtime_checkable

import numpy as np

from worker.arrays import Array, Shape
from worker.initializers import Initializer
from worker.seeds import Purpose, generator
from worker.tables import Collector

Params: TypeAlias = Mapping[str, Array]
"""A layer's parameters, or their gradients, by name: views of the network's flat vector."""

Backward: TypeAlias = Callable[[Array, Params], Array]
"""`backward(dy, grads) -> dx`: fills every array of `grads` with dL/dparameter and returns dL/dx, where dy is dL/dy.

The gradient of an array that is kept and not learned is the change it should undergo, times the number of rows.
A table has no array there but a `Collector`, which `collector(grads, key)` gives.
"""


@dataclass(frozen=True)
class Parameter:
    """One array that a layer learns; or keeps, such as a running mean."""

    shape: Shape
    initializer: Initializer
    fan_in: int = 1
    fan_out: int = 1
    kept: bool = False
    """Whether it follows what is seen instead of the loss: the trainer adds the mean of what `backward` gives for it,
    and neither the optimizer nor a penalty touches it. It is part of the model all the same."""
    lookups: int = 0
    """For a table (rows, size), of which a row of data uses only a few rows: how many, at the most."""

    @property
    def is_table(self) -> bool:
        """Whether its gradient consists of the rows that were looked up."""
        return self.lookups > 0


@dataclass(frozen=True)
class Draw:
    """Which part of a job a forward pass is: all that its random numbers follow from."""

    seed: int
    step: int
    shard: int


Observer: TypeAlias = Callable[[tuple[int, ...], Array, Array | None], None]
"""Is told where a layer is (see Context.path), its outputs (rows, ...), and the mask."""


@dataclass(slots=True)
class Context:
    """What a layer may know beyond its input."""

    input_gradient: bool = True
    """Whether anyone needs dx. The first layer's is never used, and for a dense layer it costs a third of the work."""
    draw: Draw | None = None
    """Set while training. Without it the network predicts: nothing is dropped, and statistics are those kept."""
    mask: Array | None = None
    """For sequences of different lengths, (rows, time) of truth values: False where a row is padded. It is that of what
    enters, and whoever runs a layer finds here afterwards that of what came out: a layer that makes other places of
    those it was given, or none, says so."""
    path: tuple[int, ...] = ()
    """Where the layer is in the network, so that each draws numbers of its own."""
    penalties: list[float] = field(default_factory=list)
    """What layers add to the summed loss; a layer that does so adds the gradient of it in its backward."""
    parameter_gradient: bool = True
    """Whether anyone needs the gradients of parameters. A frozen layer's are never used, and it may leave them out."""
    weights: Array | None = None
    """(rows,): how much each row counts in what is added to the loss; without them, every row counts 1."""
    observe: Observer | None = None
    """Who looks at what comes out of the layers, if anyone does."""

    def given(self, x: Array) -> Array | None:
        """Where x (rows, time, ...) is not padded. None if nothing is, or x is (rows, features), without places."""
        return self.mask if x.ndim > 2 else None

    def counts(self, x: Array) -> Array | None:
        """How much each row of x counts, (rows,); or each of its places, (rows, time), where some are padded and count
        0. None if every row counts 1."""
        given = self.given(x)
        if given is None:
            return self.weights
        return given.astype(x.dtype) if self.weights is None else given * self.weights[:, np.newaxis]

    def inside(self, index: int, *, input_gradient: bool = True) -> "Context":
        """The context of a layer within this one."""
        own = (*self.path, index)
        return Context(
            input_gradient,
            self.draw,
            self.mask,
            own,
            self.penalties,
            self.parameter_gradient,
            self.weights,
            self.observe,
        )

    def generator(self) -> np.random.Generator:
        """The layer's own random numbers in this step and shard: the same whoever computes it, and however often."""
        assert self.draw is not None, "only training draws"  # noqa: S101 - asked for while predicting: a layer's mistake
        return generator(self.draw.seed, Purpose.LAYER, self.draw.step, self.draw.shard, *self.path)


class Layer(Protocol):
    """A differentiable function of rows. Implementations are frozen dataclasses of hyper-parameters."""

    def output_shape(self, input_shape: Shape) -> Shape:
        """The shape of a row after the layer. Raises ValueError, saying what would fit, if it can't take the input."""

    def parameters(self, input_shape: Shape) -> Mapping[str, Parameter]:
        """What the layer learns or keeps, in the order in which it lies in the flat vector."""

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:
        """Computes y from x, both with a first axis of rows, and returns it with its backward."""


@runtime_checkable
class CanDie(Protocol):
    """A layer whose units may fall silent for good, since no gradient passes where they are."""

    def alive(self, y: Array) -> Array:
        """Where outputs let a gradient through."""


@runtime_checkable
class CanSaturate(Protocol):
    """A layer whose curve flattens out on either side."""

    def flat(self, y: Array) -> Array:
        """Where outputs have less than 5 % of the curve's greatest slope."""


def blanked(x: Array, mask: Array | None) -> Array:
    """x (rows, time, ...) with zeros at padded places; x itself if there are none."""
    if mask is None:
        return x
    return np.where(mask.reshape(*mask.shape, *[1] * (x.ndim - 2)), x, np.zeros((), x.dtype))


def collector(grads: Params, key: str) -> Collector:
    """What stands in `grads` for a table."""
    return cast("Collector", grads[key])
