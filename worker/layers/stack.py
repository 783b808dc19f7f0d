"""Layers one behind the other, as a layer; and the two ways to put stacks together.

Run the layers forward, then their closures in reverse: that is all of backpropagation.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from worker.arrays import Array, Shape
from worker.errors import InvalidValue, ShapeMismatch
from worker.layers.layer import Backward, Context, Layer, Parameter, Params


def shapes(layers: Sequence[Layer], input_shape: Shape) -> tuple[Shape, ...]:
    """The shape of a row before each layer, and after the last. Raises ShapeMismatch."""
    found = [input_shape]
    for index, layer in enumerate(layers):
        try:
            found.append(layer.output_shape(found[-1]))
        except ShapeMismatch as error:
            raise error.within("layers", index) from error
        except InvalidValue as error:
            raise ShapeMismatch((("layers", index),), error.problem, error.field) from error
        except ValueError as error:
            raise ShapeMismatch((("layers", index),), str(error)) from error
    return tuple(found)


def run(
    layers: Sequence[Layer], params: Sequence[Params], x: Array, context: Context
) -> tuple[Array, Sequence[Backward]]:
    """Goes forward through some layers. Returns what comes out, and their backwards in the same order."""
    backwards = []
    for index, (layer, own) in enumerate(zip(layers, params, strict=True)):
        inside = context.inside(index, input_gradient=context.input_gradient or index > 0)
        x, backward = layer.forward(own, x, inside)
        context.mask = inside.mask
        if inside.observe is not None:
            inside.observe(inside.path, x, inside.mask)
        backwards.append(backward)
    return x, backwards


@dataclass(frozen=True)
class Leaf:
    """A layer that has none inside, and where in a network it is."""

    name: str
    """As in the contract: "layers.3", "layers.3.branches.0.layers.1"."""
    path: tuple[int, ...]
    """As its context says."""
    layer: Layer
    shape: Shape
    """Of a row after it."""
    parameters: tuple[tuple[int, str], ...]
    """What it learns or keeps, each as the number of the network's layer and the name there."""


def leaves(layers: Sequence[Layer], input_shape: Shape) -> Iterator[Leaf]:
    """The layers of a network that have none inside, in order. Raises ShapeMismatch."""
    found = shapes(layers, input_shape)
    for index, (layer, before, after) in enumerate(zip(layers, found, found[1:], strict=False)):
        yield from _within(f"layers.{index}", (index,), "", layer, before, after)


def _within(name: str, path: tuple[int, ...], prefix: str, layer: Layer, before: Shape, after: Shape) -> Iterator[Leaf]:
    if not isinstance(layer, Residual | Concatenate):
        parameters = tuple((path[0], prefix + key) for key in layer.parameters(before))
        yield Leaf(name, path, layer, after, parameters)
        return
    for number, (key, called, stack) in enumerate(layer.stacks()):
        found = shapes(stack.layers, before)
        for index, (inner, first, last) in enumerate(zip(stack.layers, found, found[1:], strict=False)):
            place = (*path, number, index)
            yield from _within(f"{name}.{called}.{index}", place, f"{prefix}{key}.{index}.", inner, first, last)


@dataclass(frozen=True)
class Stack:
    """y = f_n(... f_2(f_1(x))). Parameters are named "<index>.<parameter>"."""

    layers: tuple[Layer, ...] = ()

    def output_shape(self, input_shape: Shape) -> Shape:
        return shapes(self.layers, input_shape)[-1]

    def parameters(self, input_shape: Shape) -> Mapping[str, Parameter]:
        return _prefixed(
            {
                str(index): layer.parameters(shape)
                for index, (layer, shape) in enumerate(zip(self.layers, shapes(self.layers, input_shape), strict=False))
            }
        )

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:
        count = len(self.layers)
        y, backwards = run(self.layers, parts(params, count), x, context)

        def backward(dy: Array, grads: Params) -> Array:
            for back, own in zip(reversed(backwards), reversed(parts(grads, count)), strict=True):
                dy = back(dy, own)
            return dy

        return y, backward


@dataclass(frozen=True)
class Residual:
    """y = f(x) + g(x), with f a stack of layers and g another, or x itself (He et al. 2016, eq. 1 and 2).

    The sum lets the gradient through undiminished, so that networks of many layers can be trained.
    """

    layers: tuple[Layer, ...]
    projection: tuple[Layer, ...] = ()
    """g, for when f changes the shape; without it g(x) = x."""

    def __post_init__(self) -> None:
        if not self.layers:
            raise InvalidValue("layers", "is empty; a residual block needs at least one layer to go around")

    def output_shape(self, input_shape: Shape) -> Shape:
        shape, skip = self._shapes(input_shape)
        if shape != skip:
            what = "the projection makes of them" if self.projection else "entered"
            raise ValueError(
                f"its layers turn rows of shape {input_shape} into {shape}, which can't be added to the {skip} that "
                f"{what}; give a projection that ends in {shape}"
            )
        return shape

    def parameters(self, input_shape: Shape) -> Mapping[str, Parameter]:
        return _prefixed(
            {
                "layers": Stack(self.layers).parameters(input_shape),
                "projection": Stack(self.projection).parameters(input_shape),
            }
        )

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:
        around, along = context.inside(0), context.inside(1)
        y, back = Stack(self.layers).forward(part(params, "layers"), x, around)
        skip, back_skip = Stack(self.projection).forward(part(params, "projection"), x, along)
        context.mask = _joint(around, along)

        def backward(dy: Array, grads: Params) -> Array:
            return back(dy, part(grads, "layers")) + back_skip(dy, part(grads, "projection"))

        return y + skip, backward

    def stacks(self) -> Sequence[tuple[str, str, Stack]]:
        """What is inside, in the order of contexts: how parameters there are prefixed, the name in the contract."""
        return [
            ("layers", "layers", Stack(self.layers)),
            ("projection", "projection", Stack(self.projection)),
        ]

    def _shapes(self, input_shape: Shape) -> tuple[Shape, Shape]:
        shape = Stack(self.layers).output_shape(input_shape)
        try:
            return shape, Stack(self.projection).output_shape(input_shape)
        except ShapeMismatch as error:
            ((_, index), *rest) = error.path
            raise ShapeMismatch((("projection", index), *rest), error.problem, error.field) from error


@dataclass(frozen=True)
class Concatenate:
    """y = [f_1(x), f_2(x), ...] along the last axis of a row, each f a stack of layers (an empty one passes x on)."""

    branches: tuple[Stack, ...]

    def __post_init__(self) -> None:
        if len(self.branches) < 2:
            raise InvalidValue("branches", f"has {len(self.branches)}; must have at least 2")

    def output_shape(self, input_shape: Shape) -> Shape:
        found = []
        for index, branch in enumerate(self.branches):
            try:
                found.append(branch.output_shape(input_shape))
            except ShapeMismatch as error:
                raise error.within("branches", index) from error
        if not found[0] or any(shape[:-1] != found[0][:-1] for shape in found):
            ends = ", ".join(map(str, found))
            raise ValueError(f"its branches end in {ends}; they may differ in the last axis alone")
        return (*found[0][:-1], sum(shape[-1] for shape in found))

    def parameters(self, input_shape: Shape) -> Mapping[str, Parameter]:
        return _prefixed({str(index): branch.parameters(input_shape) for index, branch in enumerate(self.branches)})

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:
        count = len(self.branches)
        insides = [context.inside(index) for index in range(count)]
        outputs, backwards = zip(
            *(
                branch.forward(own, x, inside)
                for branch, own, inside in zip(self.branches, parts(params, count), insides, strict=True)
            ),
            strict=True,
        )
        context.mask = _joint(*insides) if outputs[0].ndim > 2 else None
        ends = np.cumsum([y.shape[-1] for y in outputs])[:-1]

        def backward(dy: Array, grads: Params) -> Array:
            pieces = zip(backwards, np.split(dy, ends, axis=-1), parts(grads, count), strict=True)
            dx: Array = functools.reduce(np.add, [back(piece, own) for back, piece, own in pieces])
            return dx

        return np.concatenate(outputs, axis=-1), backward

    def stacks(self) -> Sequence[tuple[str, str, Stack]]:
        """What is inside, as a residual block says it."""
        return [(str(index), f"branches.{index}.layers", branch) for index, branch in enumerate(self.branches)]


def _joint(*ways: Context) -> Array | None:
    """The mask of what comes of several ways together: where it is padded on one of them."""
    masks = [way.mask for way in ways if way.mask is not None]
    return functools.reduce(np.logical_and, masks) if masks else None


def part(params: Params, name: str) -> Params:
    """The parameters of what is called `name` within, without that in front of their names."""
    prefix = f"{name}."
    return {key[len(prefix) :]: value for key, value in params.items() if key.startswith(prefix)}


def parts(params: Params, count: int) -> Sequence[Params]:
    """The parameters of `count` things called "0", "1" and so on."""
    found: list[dict[str, Array]] = [{} for _ in range(count)]
    for key, value in params.items():
        index, _, rest = key.partition(".")
        found[int(index)][rest] = value
    return found


def _prefixed(within: Mapping[str, Mapping[str, Parameter]]) -> dict[str, Parameter]:
    return {f"{name}.{key}": parameter for name, inner in within.items() for key, parameter in inner.items()}
