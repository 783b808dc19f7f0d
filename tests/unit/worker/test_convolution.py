"""Convolutions against their definition, a sum for every window written as loops."""

import itertools
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.arrays import Array, Shape
from worker.errors import InvalidValue
from worker.layers import Context, Conv1d, Conv1dTranspose, Conv2d, Conv2dTranspose, Layer, Padding

few = settings(deadline=None, max_examples=40)


@st.composite
def images(draw: st.DrawFn) -> tuple[Conv2d, Shape]:
    """A convolution and the shape of an image that it takes."""
    kernel, stride, dilation = (draw(st.tuples(st.integers(1, 3), st.integers(1, 3))) for _ in range(3))
    groups = draw(st.integers(1, 2))
    filters, channels = (groups * draw(st.integers(1, 3)) for _ in range(2))
    extent = [apart * (size - 1) + 1 for apart, size in zip(dilation, kernel, strict=True)]
    margin: Shape = ()
    padding = draw(st.sampled_from(Padding))
    if padding is Padding.VALID:
        margin = (draw(st.integers(0, extent[0] - 1)), draw(st.integers(0, extent[1] - 1)))
    sizes = [draw(st.integers(reach, reach + 4)) for reach in extent]
    bias = draw(st.booleans())
    return Conv2d(filters, kernel, stride, padding, margin, dilation, groups, bias), (*sizes, channels)


def random_params(layer: Layer, shape: Shape) -> dict[str, Array]:
    rng = np.random.default_rng(4)
    return {name: rng.standard_normal(each.shape) for name, each in layer.parameters(shape).items()}


def by_definition(layer: Conv2d, params: dict[str, Array], x: Array) -> Array:
    """y[p] = b + sum over k of x[p stride + k dilation - margin] W[k], with x = 0 outside."""
    weight = params["weight"]
    rows, height, width, channels = x.shape
    (kh, kw), (sh, sw), (dh, dw) = layer.kernel_size, layer.stride, layer.dilation
    if layer.padding is Padding.SAME:
        outputs = -(-height // sh), -(-width // sw)
        total = [
            max((count - 1) * s + d * (k - 1) + 1 - n, 0)
            for count, s, d, k, n in zip(outputs, (sh, sw), (dh, dw), (kh, kw), (height, width), strict=True)
        ]
        top, left = total[0] // 2, total[1] // 2
    else:
        top, left = layer.padding_size
        outputs = (height + 2 * top - dh * (kh - 1) - 1) // sh + 1, (width + 2 * left - dw * (kw - 1) - 1) // sw + 1
    y = np.zeros((rows, *outputs, layer.filters))
    of_group, filters = channels // layer.groups, layer.filters // layer.groups
    for down, across, i, j, group in itertools.product(*map(range, outputs), range(kh), range(kw), range(layer.groups)):
        at = down * sh + i * dh - top, across * sw + j * dw - left
        if 0 <= at[0] < height and 0 <= at[1] < width:
            seen, own = slice(group * of_group, (group + 1) * of_group), slice(group * filters, (group + 1) * filters)
            y[:, down, across, own] += x[:, at[0], at[1], seen] @ weight[i, j, :, own]
    return y + params.get("bias", 0)


@few
@given(images(), st.integers(1, 3))
def test_a_convolution_is_its_definition(drawn: tuple[Conv2d, Shape], rows: int) -> None:
    layer, shape = drawn
    params = random_params(layer, shape)
    x = np.random.default_rng(5).standard_normal((rows, *shape))
    y, _ = layer.forward(params, x, Context())
    assert y.shape == (rows, *layer.output_shape(shape))
    np.testing.assert_allclose(y, by_definition(layer, params, x), rtol=0, atol=1e-12)


@few
@given(images(), st.integers(1, 3))
def test_a_transposed_convolution_is_the_adjoint(drawn: tuple[Conv2d, Shape], rows: int) -> None:
    """<C x, y> = <x, C^T y>, for the C with the same kernel from C^T's output back to its input."""
    layer, (*sizes, channels) = drawn
    fields: dict[str, Any] = {name: getattr(layer, name) for name in ("kernel_size", "stride", "padding", "dilation")}
    fields |= {"padding_size": layer.padding_size, "groups": layer.groups, "bias": False}
    back, forth = Conv2dTranspose(channels, **fields), Conv2d(layer.filters, **fields)
    places = (*sizes, layer.filters)
    larger = back.output_shape(places)
    assert forth.output_shape(larger) == places
    params = random_params(back, places)
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((rows, *larger)), rng.standard_normal((rows, *places))
    forward, _ = forth.forward(params, x, Context())
    backward, _ = back.forward(params, y, Context())
    assert np.vdot(forward, y) == pytest.approx(np.vdot(x, backward), rel=1e-10, abs=1e-10)


@few
@given(images(), st.integers(1, 3))
def test_a_sequence_is_an_image_one_wide(drawn: tuple[Conv2d, Shape], rows: int) -> None:
    image, (time, _, channels) = drawn
    first: dict[str, Any] = {
        name: getattr(image, name)[:1] for name in ("kernel_size", "stride", "padding_size", "dilation")
    }
    same: dict[str, Any] = {"padding": image.padding, "groups": image.groups}
    pairs: list[tuple[Any, Any]] = [(Conv1d, Conv2d), (Conv1dTranspose, Conv2dTranspose)]
    for of_sequences, of_images in pairs:
        sequence = of_sequences(image.filters, **first, **same)
        wide = {name: (*value, int(name != "padding_size")) if value else () for name, value in first.items()}
        one_wide = of_images(image.filters, **wide, **same)
        params = random_params(sequence, (time, channels))
        x = np.random.default_rng(5).standard_normal((rows, time, channels))
        y, _ = sequence.forward(params, x, Context())
        expected, _ = one_wide.forward(
            params | {"weight": params["weight"][:, np.newaxis]}, x[:, :, np.newaxis], Context()
        )
        np.testing.assert_allclose(y, expected[:, :, 0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 2])
def test_images_too_large_for_one_tile(groups: int) -> None:
    """Lines of an image in several tiles, and a batch of which the last tile is not full: y, dW and dx."""
    layer, shape = Conv2d(2, (3, 3), (1, 1), Padding.VALID, (1, 1), (1, 1), groups), (40, 30, 32)
    params = random_params(layer, shape)
    rng = np.random.default_rng(5)
    x = rng.standard_normal((2, *shape))
    y, back = layer.forward(params, x, Context())
    np.testing.assert_allclose(y, by_definition(layer, params, x), rtol=0, atol=1e-11)
    grads = {name: np.empty_like(value) for name, value in params.items()}
    dy = rng.standard_normal(y.shape)
    dx = back(dy, grads)
    # y is linear in x and in (W, b): <dy, y(d)> = <gradient, d> for any direction d.
    direction = rng.standard_normal(x.shape)
    moved = by_definition(layer, {"weight": params["weight"]}, direction)
    assert np.vdot(dx, direction) == pytest.approx(np.vdot(dy, moved), rel=1e-10)
    directions = {name: rng.standard_normal(value.shape) for name, value in params.items()}
    expected = np.vdot(dy, by_definition(layer, directions, x))
    assert sum(np.vdot(grads[name], directions[name]) for name in params) == pytest.approx(expected, rel=1e-10)


def test_conv1d_by_hand() -> None:
    params = {"weight": np.array([[[1.0]], [[2.0]]]), "bias": np.array([10.0])}
    x = np.array([[[1.0], [0.0], [3.0]]])
    y, back = Conv1d(1, (2,)).forward(params, x, Context())
    np.testing.assert_array_equal(y, [[[11], [16]]])
    grads = {name: np.empty_like(value) for name, value in params.items()}
    np.testing.assert_array_equal(back(np.array([[[1.0], [-1.0]]]), grads), [[[1], [1], [-2]]])
    np.testing.assert_array_equal(grads["weight"], [[[1]], [[-3]]])
    np.testing.assert_array_equal(grads["bias"], [0])


def test_conv1d_transpose_by_hand() -> None:
    params = {"weight": np.array([[[1.0]], [[2.0]], [[3.0]]]), "bias": np.array([10.0])}
    y, _ = Conv1dTranspose(1, (3,), (2,)).forward(params, np.array([[[1.0], [-1.0]]]), Context())
    np.testing.assert_array_equal(y, [[[11], [12], [12], [8], [7]]])


@pytest.mark.parametrize(("size", "stride"), list(itertools.product(range(1, 8), range(1, 4))))
def test_same_padding_gives_size_over_stride_and_transposed_size_times_stride(size: int, stride: int) -> None:
    for kernel in range(1, 5):
        for dilation in range(1, 3):
            fields: dict[str, Any] = {"padding": Padding.SAME, "dilation": (dilation,)}
            assert Conv1d(2, (kernel,), (stride,), **fields).output_shape((size, 3)) == (-(-size // stride), 2)
            assert Conv1dTranspose(2, (kernel,), (stride,), **fields).output_shape((size, 3)) == (size * stride, 2)


def test_fans_count_what_a_filter_sees() -> None:
    weight = Conv2d(8, (3, 5), groups=2).parameters((9, 9, 4))["weight"]
    assert (weight.shape, weight.fan_in, weight.fan_out) == ((3, 5, 2, 8), 30, 60)
    weight = Conv2dTranspose(8, (4,), (2,)).parameters((9, 9, 6))["weight"]
    assert (weight.shape, weight.fan_in, weight.fan_out) == ((4, 4, 8, 6), 24, 128)


@pytest.mark.parametrize(
    ("fields", "field", "problem"),
    [
        ({"filters": 0}, "filters", "is 0; must be 1 to 65,536"),
        ({"filters": 65_537}, "filters", "is 65537"),
        ({"groups": 0}, "groups", "must divide the 6 filters"),
        ({"groups": 4}, "groups", "is 4; must divide the 6 filters"),
        ({"kernel_size": ()}, "kernel_size", "is missing"),
        ({"kernel_size": (0, 3)}, "kernel_size", "is 0; must be 1 to 1,024"),
        ({"kernel_size": (1025,)}, "kernel_size", "is 1025"),
        ({"kernel_size": (3, 3, 3)}, "kernel_size", "has 3 numbers; must have one number, or two"),
        ({"stride": ()}, "stride", "is empty"),
        ({"stride": (0,)}, "stride", "is 0"),
        ({"dilation": (2, 0)}, "dilation", "is 0"),
        ({"padding_size": (-1,)}, "padding_size", "is -1; must be 0 to"),
        ({"padding_size": (3,)}, "padding_size", "is 3; must be less than the 3 places"),
        ({"padding_size": (0,), "padding": Padding.SAME}, "padding_size", "beside padding SAME"),
    ],
    ids=str,
)
def test_what_a_convolution_refuses(fields: dict[str, Any], field: str, problem: str) -> None:
    defaults: dict[str, Any] = {"filters": 6, "kernel_size": (3,)}
    with pytest.raises(InvalidValue, match=re.escape(problem)) as refused:
        Conv2d(**defaults | fields)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("layer", "shape", "mentions"),
    [
        (Conv2d(2, (3,)), (28, 28), ["conv2d", "(28, 28)", "put a reshape to (28, 28, 1) first"]),
        (Conv1d(2, (3,)), (28,), ["conv1d", "put a reshape to (28, 1) first"]),
        (Conv1d(2, (3,)), (8, 8, 3), ["(time, channels)", "(8, 8, 3)"]),
        (Conv2d(2, (3,)), (784,), ["(height, width, channels)", "(784,)"]),
        (Conv2d(2, (3,)), (5, 5, 0), ["(5, 5, 0)"]),
        (Conv2d(4, (3,), groups=2), (5, 5, 3), ["groups: is 2", "(5, 5, 3)", "3 channels"]),
        (Conv2d(2, (3, 7)), (5, 5, 1), ["kernel_size: is 7", "(5, 5, 1)", "at most 5", "padding SAME"]),
        (Conv1dTranspose(2, (3,), padding_size=(2,)), (2, 1), ["padding_size: would leave nothing of the 2 places"]),
        (Conv2d(2, (1024,), (1024,), dilation=(1024,), padding=Padding.SAME), (1, 1, 1), ["numbers at once"]),
        (Conv2d(65_536, (3,)), (500, 500, 64), ["multiplications", "fewer filters"]),
        (Conv2dTranspose(65_536, (1024,), (1024,)), (1024, 1024, 1), ["numbers at once"]),
    ],
    ids=str,
)
def test_what_a_convolution_can_not_take(layer: Layer, shape: Shape, mentions: list[str]) -> None:
    for text in mentions:
        with pytest.raises(ValueError, match=re.escape(text)):
            layer.output_shape(shape)
