"""The same numbers of a row in another shape."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from worker.arrays import Array, Shape
from worker.errors import InvalidValue
from worker.layers.layer import Backward, Context, Parameter, Params

MOST_AXES = 8
LARGEST = 1_000_000_000


@dataclass(frozen=True)
class Flatten:
    """All numbers of a row behind one another: (rows, ...) becomes (rows, features), the last axis running fastest."""

    def output_shape(self, input_shape: Shape) -> Shape:
        return (math.prod(input_shape),)

    def parameters(self, input_shape: Shape) -> Mapping[str, Parameter]:  # noqa: ARG002 - none, whatever the shape
        return {}

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:  # noqa: ARG002
        context.mask = None
        return x.reshape(len(x), math.prod(x.shape[1:])), lambda dy, _grads: dy.reshape(x.shape)


@dataclass(frozen=True)
class Reshape:
    """Rows of another shape with the same numbers in the same order, the last axis running fastest.

    Sequences stay such, with padded places where they were, if the first of at least two sizes is as before.
    """

    shape: Shape = ()
    """One of them may be -1: as many as are left."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.shape) <= MOST_AXES:
            raise InvalidValue("shape", f"has {len(self.shape)} axes; must have 1 to {MOST_AXES}")
        if any(size != -1 and not 1 <= size <= LARGEST for size in self.shape) or self.shape.count(-1) > 1:
            raise InvalidValue("shape", f"is {self.shape}; must be sizes from 1 on; one may be -1, for what is left")

    def output_shape(self, input_shape: Shape) -> Shape:
        have, want = math.prod(input_shape), math.prod(size for size in self.shape if size != -1)
        rest, over = divmod(have, want)
        if over or rest < 1 or (rest != 1 and -1 not in self.shape):
            fits = "sizes that divide it" if -1 in self.shape else "sizes whose product that is"
            raise InvalidValue(
                "shape",
                f"is {self.shape}, which can't be made of rows of shape {input_shape}, which have {have:,} numbers; "
                f"give {fits}",
            )
        return tuple(rest if size == -1 else size for size in self.shape)

    def parameters(self, input_shape: Shape) -> Mapping[str, Parameter]:  # noqa: ARG002 - none, whatever the shape
        return {}

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:  # noqa: ARG002
        shape = self.output_shape(x.shape[1:])
        if len(shape) == 1 or shape[0] != x.shape[1]:
            context.mask = None
        return x.reshape(len(x), *shape), lambda dy, _grads: dy.reshape(x.shape)
