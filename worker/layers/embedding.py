"""A table of vectors, one for every word, place or thing that has a number."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from worker.arrays import Array, Shape
from worker.errors import InvalidValue
from worker.initializers import Initializer
from worker.layers.layer import Backward, Context, Parameter, Params, collector

MOST_ROWS = 10_000_000
"""Below 2^24, up to which single precision holds every integer: numbers of rows arrive as floats."""

LARGEST = 16_384


@dataclass(frozen=True)
class Embedding:
    """y = W[x], for integers x (rows, time) or (rows,), W (vocabulary, size), and y (rows, time, size) or (rows, size).

    It is the product of W with x as one-hot vectors, without the zeros (Bengio et al. 2003, "A neural probabilistic
    language model", section 2). Its gradient has only the rows of W that were looked up. Where a row of the data is
    padded it gets whatever x says there, and learns nothing from it.
    """

    vocabulary: int
    size: int
    initializer: Initializer = Initializer.GLOROT_UNIFORM
    """By default within +-sqrt(6 / (1 + size)), so that vectors start about sqrt(2) long, whatever their size."""

    def __post_init__(self) -> None:
        if not 1 <= self.vocabulary <= MOST_ROWS:
            raise InvalidValue("vocabulary", f"is {self.vocabulary}; must be 1 to {MOST_ROWS:,}")
        if not 1 <= self.size <= LARGEST:
            raise InvalidValue("size", f"is {self.size}; must be 1 to {LARGEST:,}")

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) > 1:
            raise ValueError(
                f"embedding takes rows of shape (time,) or (), of integers, but rows of shape {input_shape} reach it"
            )
        if input_shape == (0,):
            raise ValueError("embedding takes rows of at least one place in time, but rows of shape (0,) reach it")
        return (*input_shape, self.size)

    def parameters(self, input_shape: Shape) -> Mapping[str, Parameter]:
        # Of the one-hot inputs a single one is not zero, so that an output is the sum of one: fan_in is 1.
        return {
            "weight": Parameter(
                (self.vocabulary, self.size),
                self.initializer,
                fan_in=1,
                fan_out=self.size,
                lookups=input_shape[0] if input_shape else 1,
            )
        }

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:
        """Raises IndexError if a number is not one of a row."""
        with np.errstate(invalid="ignore"):  # NaN becomes a number that is refused
            ids = x.astype(np.intp)
        if ids.size and not 0 <= ids.min() <= ids.max() < self.vocabulary:
            raise IndexError(f"has {ids.min()} to {ids.max()}, but the embedding is for 0 to {self.vocabulary - 1}")
        used = context.mask

        def backward(dy: Array, grads: Params) -> Array:
            """dW[i] is the sum of dy over all places where x is i; and x, of integers, has no gradient."""
            if used is None:
                collector(grads, "weight").put(ids.reshape(-1), dy.reshape(-1, self.size))
            else:
                collector(grads, "weight").put(ids[used], dy[used])
            return np.zeros_like(x)

        return params["weight"].take(ids, axis=0), backward
