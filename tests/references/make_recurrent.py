"""Writes what PyTorch computes with recurrent layers and attention: outputs and gradients, from weights as it has them.

    python tests/references/make_recurrent.py        needs torch (benchmarks/requirements.txt); the tests don't

Each file holds x, dy, y, dx and, for each of PyTorch's parameters, "p.<name>" and its gradient "g.<name>", in float64.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

HERE = Path(__file__).parent
ROWS, TIME, FEATURES, UNITS, HEADS = 3, 4, 4, 3, 2


def keep(name: str, module: nn.Module, x: Tensor, y: Tensor, **more: Tensor) -> None:
    """Goes back from random dy and writes the file."""
    dy = torch.randn_like(y)
    y.backward(dy)
    arrays = {"x": x, "y": y, "dy": dy, "dx": x.grad, **more}
    for key, value in module.named_parameters():
        arrays |= {f"p.{key}": value, f"g.{key}": value.grad}
    np.savez_compressed(HERE / f"{name}.npz", **{key: value.detach().numpy() for key, value in arrays.items()})


def inputs() -> Tensor:
    """x (rows, time, features)."""
    return torch.randn(ROWS, TIME, FEATURES, requires_grad=True)


def attention(name: str, *, causal: bool = False, padding: Tensor | None = None) -> None:
    """Self-attention, with the bias of the projections drawn too, since PyTorch starts it at zero."""
    module = nn.MultiheadAttention(FEATURES, HEADS, batch_first=True)
    for bias in (module.in_proj_bias, module.out_proj.bias):
        nn.init.normal_(bias)
    x = inputs()
    later = torch.triu(torch.ones(TIME, TIME, dtype=torch.bool), 1) if causal else None
    y, _ = module(x, x, x, key_padding_mask=padding, attn_mask=later, need_weights=False)
    keep(name, module, x, y, **({} if padding is None else {"padded": padding}))


def main() -> None:
    """Writes all files."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    modules = {
        "simple_rnn": nn.RNN(FEATURES, UNITS, batch_first=True),
        "simple_rnn_relu": nn.RNN(FEATURES, UNITS, nonlinearity="relu", batch_first=True),
        "lstm": nn.LSTM(FEATURES, UNITS, batch_first=True),
        "lstm_bidirectional": nn.LSTM(FEATURES, UNITS, batch_first=True, bidirectional=True),
        "gru": nn.GRU(FEATURES, UNITS, batch_first=True),
    }
    for name, module in modules.items():
        x = inputs()
        keep(name, module, x, module(x)[0])
    attention("attention")
    attention("attention_causal", causal=True)
    attention("attention_padded", padding=torch.arange(TIME) >= torch.tensor([[4], [1], [3]]))


if __name__ == "__main__":
    main()
