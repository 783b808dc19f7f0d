"""The same numbers as PyTorch from the same weights: outputs, and gradients of everything.

The files come from tests/references/make_recurrent.py. PyTorch's blocks are transposed and in another order: those of
its LSTM are i, f, g, o, of its GRU r, z, n; and it has two biases where their sum alone matters.
"""

from pathlib import Path

import numpy as np
import pytest

from worker.arrays import Array
from worker.layers import Context, Gru, Layer, Lstm, MultiHeadAttention, RecurrentActivation, SimpleRnn

REFERENCES = Path(__file__).parents[2] / "references"

LAYERS: dict[str, Layer] = {
    "simple_rnn": SimpleRnn(3, return_sequences=True),
    "simple_rnn_relu": SimpleRnn(3, return_sequences=True, activation=RecurrentActivation.RELU),
    "lstm": Lstm(3, return_sequences=True),
    "lstm_bidirectional": Lstm(3, return_sequences=True, bidirectional=True),
    "gru": Gru(3, return_sequences=True),
    "attention": MultiHeadAttention(2),
    "attention_causal": MultiHeadAttention(2, causal=True),
    "attention_padded": MultiHeadAttention(2),
}


def blocks(array: Array, order: list[int]) -> Array:
    """Those of a first axis, in another order."""
    return np.concatenate([np.split(array, len(order))[index] for index in order])


def ours(layer: Layer, theirs: dict[str, Array], kind: str, suffix: str = "") -> dict[str, Array]:
    """Our arrays from theirs; of `kind` "p", parameters, or "g", gradients."""

    def of(name: str) -> Array:
        return theirs[f"{kind}.{name}{suffix}"]

    def biases(name: str = "bias_ih_l0", other: str = "bias_hh_l0") -> Array:
        return of(name) + of(other) if kind == "p" else of(name)

    match layer:
        case Lstm(bidirectional=True) if not suffix:
            one = Lstm(layer.units)
            ways = {"forward": ours(one, theirs, kind), "backward": ours(one, theirs, kind, "_reverse")}
            return {f"{way}.{key}": value for way, arrays in ways.items() for key, value in arrays.items()}
        case Lstm():
            order = [1, 0, 3, 2]
            bias = blocks(biases(), order)
            return {
                "weight": blocks(of("weight_ih_l0"), order).T,
                "recurrent_weight": blocks(of("weight_hh_l0"), order).T,
                "forget_bias": bias[: layer.units],
                "bias": bias[layer.units :],
            }
        case Gru():
            order = [1, 0, 2]
            z, r, n = np.split(blocks(biases(), order), 3)
            candidate = blocks(of("bias_ih_l0"), order)[2 * layer.units :] if kind == "p" else n
            return {
                "weight": blocks(of("weight_ih_l0"), order).T,
                "recurrent_weight": blocks(of("weight_hh_l0"), order).T,
                "bias": np.concatenate([z, r, candidate]),
                "recurrent_bias": of("bias_hh_l0")[2 * layer.units :],
            }
        case SimpleRnn():
            return {"weight": of("weight_ih_l0").T, "recurrent_weight": of("weight_hh_l0").T, "bias": biases()}
        case _:
            return {
                "weight": of("in_proj_weight").T,
                "bias": of("in_proj_bias"),
                "output_weight": of("out_proj.weight").T,
                "output_bias": of("out_proj.bias"),
            }


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-13), (np.float32, 2e-6)])
def test_pytorch_says_the_same(name: str, dtype: type, tolerance: float) -> None:
    layer = LAYERS[name]
    with np.load(REFERENCES / f"{name}.npz") as file:
        theirs = {key: file[key] if file[key].dtype == np.bool_ else file[key].astype(dtype) for key in file.files}
    params = ours(layer, theirs, "p")
    mask = ~theirs["padded"] if "padded" in theirs else None
    y, backward = layer.forward(params, theirs["x"], Context(mask=mask))
    grads = {key: np.full_like(value, np.nan) for key, value in params.items()}
    dx = backward(theirs["dy"], grads)
    np.testing.assert_allclose(y, theirs["y"], tolerance, tolerance)
    np.testing.assert_allclose(dx, theirs["dx"], 5 * tolerance, 5 * tolerance)
    for key, expected in ours(layer, theirs, "g").items():
        np.testing.assert_allclose(grads[key], expected, 5 * tolerance, 5 * tolerance, err_msg=key)
