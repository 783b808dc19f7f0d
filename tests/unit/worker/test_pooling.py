"""Pooling against its definition, and layers that change the shape or the scale of rows."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.rows import row_name
from tests.unit.worker.cases_convolution import CASES
from worker.arrays import Array, Shape
from worker.errors import InvalidValue
from worker.layers import Context, Flatten, GlobalPool, Layer, Padding, Pool1d, Pool2d, Pooling, Rescale, Reshape
from worker.task import Data

MAX, AVERAGE = Pooling.MAX, Pooling.AVERAGE
both = pytest.mark.parametrize("function", Pooling)


@settings(deadline=None, max_examples=40)
@given(st.data(), st.sampled_from(Pooling))
def test_pooling_is_its_definition(data: st.DataObject, function: Pooling) -> None:
    """Every window holds the numbers that are there, whatever the padding."""
    size, stride = (data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4))) for _ in range(2))
    top, left = (data.draw(st.integers(0, reach - 1)) for reach in size)
    height, width = (data.draw(st.integers(reach, reach + 5)) for reach in size)
    x = np.random.default_rng(3).standard_normal((2, height, width, 3))
    y, _ = Pool2d(function, size, stride, padding_size=(top, left)).forward({}, x, Context())
    _, down, across, _ = y.shape
    assert down == (height + 2 * top - size[0]) // stride[0] + 1
    assert across == (width + 2 * left - size[1]) // stride[1] + 1
    for i in range(down):
        for j in range(across):
            first, second = i * stride[0] - top, j * stride[1] - left
            window = x[:, max(first, 0) : first + size[0], max(second, 0) : second + size[1]]
            expected = window.max(axis=(1, 2)) if function is MAX else window.mean(axis=(1, 2))
            np.testing.assert_allclose(y[:, i, j], expected, rtol=0, atol=1e-14)


@both
def test_a_sequence_is_an_image_one_wide(function: Pooling) -> None:
    x = np.random.default_rng(3).standard_normal((2, 7, 3))
    y, _ = Pool1d(function, (3,), (2,), Padding.SAME).forward({}, x, Context())
    expected, _ = Pool2d(function, (3, 1), (2, 1), Padding.SAME).forward({}, x[:, :, np.newaxis], Context())
    np.testing.assert_array_equal(y, expected[:, :, 0])


@both
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_gradient_is_neither_lost_nor_made(function: Pooling, size: int, stride: int) -> None:
    """Not of numbers that are equal either: what goes up to a window comes down once."""
    x = np.random.default_rng(3).integers(2, size=(3, 8, 8, 2)).astype(np.float64)
    y, back = Pool2d(function, (size,), (stride,)).forward({}, x, Context())
    dy = np.random.default_rng(4).integers(1, 9, y.shape).astype(np.float64)
    assert back(dy, {}).sum() == pytest.approx(dy.sum(), rel=1e-12)


def test_pooling_halves_unless_told_otherwise() -> None:
    assert Pool2d().output_shape((28, 28, 16)) == (14, 14, 16)
    assert Pool1d(AVERAGE).output_shape((9, 2)) == (4, 2)


@both
def test_padded_places_take_no_part_in_a_global_pool(function: Pooling) -> None:
    rng = np.random.default_rng(3)
    x, dy = rng.standard_normal((3, 4, 2)), rng.standard_normal((3, 2))
    lengths = [4, 2, 0]
    y, back = GlobalPool(function).forward({}, x, Context(mask=np.arange(4) < np.array(lengths)[:, np.newaxis]))
    dx = back(dy, {})
    for row, length in enumerate(lengths[:2]):
        alone, back_alone = GlobalPool(function).forward({}, x[row : row + 1, :length], Context())
        np.testing.assert_allclose(y[row], alone[0], rtol=0, atol=1e-15)
        np.testing.assert_allclose(dx[row, :length], back_alone(dy[row : row + 1], {})[0], rtol=0, atol=1e-15)
        np.testing.assert_array_equal(dx[row, length:], 0)
    np.testing.assert_array_equal(y[2], 0)
    np.testing.assert_array_equal(dx[2], 0)


@settings(deadline=None, max_examples=4)
@pytest.mark.parametrize(("layer", "shape"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
@given(cuts=st.lists(st.integers(0, 23), max_size=4).map(sorted))
def test_any_split_sums_to_the_whole(layer: Layer, shape: Shape, cuts: list[int]) -> None:
    rng = np.random.default_rng(1)
    params = {name: rng.standard_normal(each.shape) for name, each in layer.parameters(shape).items()}
    x, dy = rng.standard_normal((23, *shape)), rng.standard_normal((23, *layer.output_shape(shape)))

    def gradients(x: Array, dy: Array) -> tuple[Array, Array, dict[str, Array]]:
        grads = {name: np.empty_like(value) for name, value in params.items()}
        y, back = layer.forward(params, x, Context())
        return y, back(dy, grads), grads

    whole_y, whole_dx, whole = gradients(x, dy)
    parts = [gradients(*part) for part in zip(np.split(x, cuts), np.split(dy, cuts), strict=True)]
    np.testing.assert_allclose(np.concatenate([y for y, _, _ in parts]), whole_y, rtol=0, atol=1e-12)
    np.testing.assert_allclose(np.concatenate([dx for _, dx, _ in parts]), whole_dx, rtol=0, atol=1e-12)
    for name, expected in whole.items():
        np.testing.assert_allclose(sum(grads[name] for _, _, grads in parts), expected, rtol=0, atol=1e-11)


def test_reshape_keeps_the_order() -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    for layer, shape in ((Flatten(), (12,)), (Reshape((2, -1)), (2, 6)), (Reshape((3, 4, 1)), (3, 4, 1))):
        y, back = layer.forward({}, x, Context())
        assert layer.output_shape((3, 4)) == shape
        np.testing.assert_array_equal(y, x.reshape(2, *shape))
        np.testing.assert_array_equal(back(y, {}), x)


def test_bytes_of_images_become_numbers_up_to_one() -> None:
    pixels = np.array([[[0, 51], [102, 255]]], np.uint8)
    x = Data(pixels, pixels).take(np.array([0]), np.dtype(np.float32)).inputs
    y, _ = Rescale((1 / 255,)).forward({}, x, Context())
    np.testing.assert_allclose(y, [[[0, 0.2], [0.4, 1]]], rtol=1e-6)
    assert y.dtype == np.float32


def test_standardised_features_have_mean_zero_and_deviation_one() -> None:
    x = np.random.default_rng(3).normal([5, -100], [0.1, 40], (1000, 2))
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    layer = Rescale(tuple(map(float, 1 / deviation)), tuple(map(float, -mean / deviation)))
    y, _ = layer.forward({}, x, Context())
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(y.std(axis=0), 1, rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "field", "problem"),
    [
        (lambda: Pool2d(pool_size=()), "pool_size", "is empty"),
        (lambda: Pool2d(pool_size=(0,)), "pool_size", "is 0; must be 1 to 1,024"),
        (lambda: Pool1d(pool_size=(2, 2)), "pool_size", "has 2 numbers; must have one number"),
        (lambda: Pool2d(stride=(1, 1, 1)), "stride", "has 3 numbers"),
        (lambda: Pool2d(padding_size=(2,)), "padding_size", "less than the 2 places"),
        (lambda: Pool2d(padding_size=(1,), padding=Padding.SAME), "padding_size", "beside padding SAME"),
        (lambda: Reshape(()), "shape", "has 0 axes; must have 1 to 8"),
        (lambda: Reshape((1,) * 9), "shape", "has 9 axes"),
        (lambda: Reshape((2, 0)), "shape", "sizes from 1 on"),
        (lambda: Reshape((-1, -1)), "shape", "one may be -1"),
        (lambda: Rescale(()), "scale", "has 0 numbers"),
        (lambda: Rescale((1.0,), (float("nan"),)), "offset", "has nan; must be finite"),
        (lambda: Rescale((1e39,)), "scale", "within single precision"),
    ],
    ids=row_name,
)
def test_what_is_refused(make: Any, field: str, problem: str) -> None:
    with pytest.raises(InvalidValue, match=re.escape(problem)) as refused:
        make()
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("layer", "shape", "mentions"),
    [
        (Pool2d(), (28, 28), ["pool2d", "(28, 28)", "reshape to (28, 28, 1)"]),
        (Pool1d(), (8,), ["pool1d", "(8,)"]),
        (Pool2d(), (1, 4, 3), ["pool_size: is 2", "(1, 4, 3)", "at most 1"]),
        (Pool2d(), (4, 0, 3), ["(4, 0, 3)"]),
        (GlobalPool(), (5,), ["global_pool", "(5,)"]),
        (GlobalPool(), (0, 5), ["(0, 5)"]),
        (Reshape((5,)), (2, 3), ["(5,)", "(2, 3)", "6 numbers"]),
        (Reshape((6,)), (12,), ["12 numbers"]),
        (Reshape((-1, 4)), (6,), ["(-1, 4)"]),
        (Reshape((-1, 4)), (0,), ["(0,)"]),
        (Rescale((1.0, 2.0)), (2, 3), ["scale: has 2 numbers", "(2, 3)", "give one, or 3"]),
        (Rescale(offset=(1.0, 2.0)), (), ["offset: has 2 numbers"]),
    ],
    ids=str,
)
def test_what_can_not_be_taken(layer: Layer, shape: Shape, mentions: list[str]) -> None:
    for text in mentions:
        with pytest.raises(ValueError, match=re.escape(text)):
            layer.output_shape(shape)
