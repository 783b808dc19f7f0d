"""Layers that bring numbers to mean 0 and variance 1, and then to a mean and a size that are learned.

They differ in what the statistics are taken over: all rows of a shard, the features of one place, or groups of
channels. With n = (x - mean) / sqrt(variance + epsilon) each is y = scale n + shift.
"""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from worker.arrays import Array, Shape
from worker.errors import InvalidValue
from worker.initializers import Initializer
from worker.layers.layer import Backward, Context, Parameter, Params, blanked

LEAST_EPSILON, LARGEST_EPSILON = 1e-12, 1.0


@dataclass(frozen=True)
class BatchNorm:
    """n over the rows of a shard, and all places of each row, for every feature (Ioffe and Szegedy 2015, algorithm 1).

    x and y are (rows, ..., features), scale, shift and what is kept (features,). In prediction mean and variance are
    those kept: after every step kept = momentum kept + (1 - momentum) of that step, where the step's is the mean of its
    shards' weighted by their rows. The variance that is kept is the one without bias, as in algorithm 2; a shard
    with one number a feature says nothing of it. Padded places take no part, and become 0.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise InvalidValue("momentum", f"is {self.momentum:g}; must be 0 up to, but not including, 1")
        _require_epsilon(self.epsilon)

    def output_shape(self, input_shape: Shape) -> Shape:
        return _with_features("batch_norm", input_shape)

    def parameters(self, input_shape: Shape) -> Mapping[str, Parameter]:
        shape = input_shape[-1:]
        return {
            **_scale_and_shift(shape),
            "mean": Parameter(shape, Initializer.ZEROS, kept=True),
            "variance": Parameter(shape, Initializer.ONES, kept=True),
        }

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:
        if context.draw is None:
            return self._predict(params, x, context.given(x))
        rows, mask = len(x), context.given(x)
        flat = _taken(x, mask)
        count = len(flat)
        normal = standardize(flat, over_rows, self.epsilon)

        def backward(dy: Array, grads: Params) -> Array:
            learned = rows * (1 - self.momentum) if count else 0.0
            np.multiply(normal.mean - params["mean"], learned, out=grads["mean"])
            if count > 1:
                unbiased = normal.variance * (count / (count - 1))
                np.multiply(unbiased - params["variance"], learned, out=grads["variance"])
            else:
                grads["variance"][...] = 0
            dx = normal.backward(_back_through_scale(_taken(dy, mask), normal.n, params, grads))
            return _put(dx, x.shape, mask)

        return _put(_scaled_and_shifted(normal.n, params), x.shape, mask), backward

    def _predict(self, params: Params, x: Array, mask: Array | None) -> tuple[Array, Backward]:
        """With what is kept, y is a straight line in x for every feature."""
        size = 1 / np.sqrt(params["variance"] + self.epsilon)
        n = _taken(x, mask) - params["mean"]
        n *= size

        def backward(dy: Array, grads: Params) -> Array:
            grads["mean"][...] = grads["variance"][...] = 0
            dx = _back_through_scale(_taken(dy, mask), n, params, grads)
            dx *= size
            return _put(dx, x.shape, mask)

        return _put(_scaled_and_shifted(n, params), x.shape, mask), backward


@dataclass(frozen=True)
class LayerNorm:
    """n over the features of each place of each row, the same while training and predicting (Ba et al. 2016, eq. 3).

    x and y are (rows, ..., features), scale and shift (features,).
    """

    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        _require_epsilon(self.epsilon)

    def output_shape(self, input_shape: Shape) -> Shape:
        return _with_features("layer_norm", input_shape)

    def parameters(self, input_shape: Shape) -> Mapping[str, Parameter]:
        return _scale_and_shift(input_shape[-1:])

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:  # noqa: ARG002
        return _normalized(params, x, _flat(x), over_features, self.epsilon)


@dataclass(frozen=True)
class GroupNorm:
    """n over all places of a row and the channels of a group, for each row and group (Wu and He 2018, eq. 7).

    x and y are (rows, ..., channels), scale and shift (channels,). Neighbouring channels form a group. As many groups
    as channels make it instance normalisation (Ulyanov et al. 2016). Padded places take no part, and become 0.
    """

    groups: int
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        if not 1 <= self.groups <= 1_000_000:
            raise InvalidValue("groups", f"is {self.groups}; must be 1 to 1,000,000")
        _require_epsilon(self.epsilon)

    def output_shape(self, input_shape: Shape) -> Shape:
        shape = _with_features("group_norm", input_shape)
        if shape[-1] % self.groups:
            raise InvalidValue(
                "groups",
                f"is {self.groups}; must divide the {shape[-1]} channels of the rows of shape {shape} that reach it",
            )
        return shape

    def parameters(self, input_shape: Shape) -> Mapping[str, Parameter]:
        return _scale_and_shift(input_shape[-1:])

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:
        rows, *places, channels = x.shape
        shape = (rows, math.prod(places), channels)
        mask = context.given(x)
        mean = functools.partial(over_groups, self.groups, _shares_of(mask, shape[1], x))
        y, back = _normalized(params, x, x.reshape(shape), mean, self.epsilon)
        if mask is None:
            return y, back
        return blanked(y, mask), lambda dy, grads: blanked(back(blanked(dy, mask), grads), mask)


Mean: TypeAlias = Callable[[Array], Array]
"""A mean of an array over some of its axes, in a shape that can be subtracted from it."""


def over_rows(values: Array) -> Array:
    """The mean of (n, features) over the first axis, (features,).

    As a product with a vector: ten times as fast as NumPy's sum where there are few features, and rounds less.
    """
    return _shares(len(values), values) @ values


def over_features(values: Array) -> Array:
    """The mean of (n, features) over the last axis, (n, 1)."""
    mean: Array = values @ _shares(values.shape[1], values)
    return mean[:, np.newaxis]


def over_groups(groups: int, shares: Array, values: Array) -> Array:
    """The mean of (rows, places, channels) over places and each group of channels, (rows, 1, channels).

    Each place counts for its share, (1 or rows, 1, places).
    """
    rows, places, channels = values.shape
    size = channels // groups
    of_channels = values[:, 0] if places == 1 else np.matmul(shares, values)[:, 0]
    of_channels = of_channels.reshape(rows, groups, size)
    of_groups = of_channels @ _shares(size, values)
    return np.broadcast_to(of_groups[..., np.newaxis], of_channels.shape).reshape(rows, 1, channels)


def _shares(count: int, like: Array) -> Array:
    return np.full(count, 1 / max(count, 1), like.dtype)


def _shares_of(mask: Array | None, places: int, like: Array) -> Array:
    """What each place counts in a row's mean, (1 or rows, 1, places), where some are padded (rows, time)."""
    if mask is None:
        return _shares(places, like)[np.newaxis, np.newaxis]
    given = np.repeat(mask, places // mask.shape[1], axis=1)[:, np.newaxis]
    shares: Array = given / np.maximum(given.sum(axis=2, keepdims=True), 1).astype(like.dtype)
    return shares


class Standardized(NamedTuple):
    """Numbers with mean 0 and variance 1, and what that took."""

    n: Array
    mean: Array
    variance: Array
    backward: Callable[[Array], Array]
    """From dL/dn to dL/dx; uses up what it is given."""


def standardize(x: Array, m: Mean, epsilon: float) -> Standardized:
    """n = (x - m(x)) / sqrt(m((x - m(x))^2) + epsilon), m being a mean over some of the axes.

    dx = (dn - m(dn) - n m(dn n)) / sqrt(variance + epsilon): what is left of dn when its parts along 1 and along n,
    which normalising takes away, are gone (Ioffe and Szegedy 2015, section 3).
    """
    mean = m(x)
    n = x - mean
    variance = m(n * n)
    size = 1 / np.sqrt(variance + epsilon)
    n *= size

    def backward(dn: Array) -> Array:
        product = dn * n
        along = m(product)
        dn -= m(dn)
        np.multiply(n, along, out=product)
        dn -= product
        dn *= size
        return dn

    return Standardized(n, mean, variance, backward)


def _normalized(params: Params, x: Array, shaped: Array, m: Mean, epsilon: float) -> tuple[Array, Backward]:
    """y and the backward of a layer whose statistics are those of single rows; `shaped` is x in the shape m takes."""
    normal = standardize(shaped, m, epsilon)
    n = _flat(normal.n)

    def backward(dy: Array, grads: Params) -> Array:
        dn = _back_through_scale(_flat(dy), n, params, grads)
        return normal.backward(dn.reshape(shaped.shape)).reshape(x.shape)

    return _scaled_and_shifted(n, params).reshape(x.shape), backward


def _flat(x: Array) -> Array:
    """(rows, ..., features) as (n, features)."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _taken(x: Array, mask: Array | None) -> Array:
    """What of x (rows, [time,] ..., features) is not padded, as (n, features)."""
    return _flat(x if mask is None else x[mask])


def _put(flat: Array, shape: Shape, mask: Array | None) -> Array:
    """Back where it was taken from, with zeros where it is padded."""
    if mask is None:
        return flat.reshape(shape)
    x = np.zeros(shape, flat.dtype)
    x[mask] = flat.reshape(np.count_nonzero(mask), *shape[2:])
    return x


def _scale_and_shift(shape: Shape) -> dict[str, Parameter]:
    return {"scale": Parameter(shape, Initializer.ONES), "shift": Parameter(shape, Initializer.ZEROS)}


def _scaled_and_shifted(n: Array, params: Params) -> Array:
    y = n * params["scale"]
    y += params["shift"]
    return y


def _back_through_scale(dy: Array, n: Array, params: Params, grads: Params) -> Array:
    """dn = scale dy, dscale = the sum of dy n, dshift = the sum of dy; dy and n are (n, features)."""
    ones = np.ones(len(dy), dy.dtype)
    product = dy * n
    np.matmul(ones, product, out=grads["scale"])
    np.matmul(ones, dy, out=grads["shift"])
    dn: Array = np.multiply(dy, params["scale"], out=product)
    return dn


def _with_features(layer: str, input_shape: Shape) -> Shape:
    if not input_shape or input_shape[-1] < 1:
        raise ValueError(
            f"{layer} takes rows of shape (..., features) with at least one feature, but rows of shape {input_shape} "
            "reach it"
        )
    return input_shape


def _require_epsilon(epsilon: float) -> None:
    if not LEAST_EPSILON <= epsilon <= LARGEST_EPSILON:
        raise InvalidValue("epsilon", f"is {epsilon:g}; must be {LEAST_EPSILON:g} to {LARGEST_EPSILON:g}")
