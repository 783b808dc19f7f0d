"""Layers for sequences, as rows of test_layers.py: name, layer, shape of a row."""

from worker.arrays import Shape
from worker.layers import (
    Dense,
    Gru,
    Layer,
    Lstm,
    MultiHeadAttention,
    PositionalEncoding,
    RecurrentActivation,
    ReLU,
    Residual,
    SimpleRnn,
)

CELLS: dict[str, type[SimpleRnn | Lstm | Gru]] = {"simple rnn": SimpleRnn, "lstm": Lstm, "gru": Gru}

RECURRENT: list[tuple[str, Layer, Shape]] = [
    *((name, cell(3), (4, 2)) for name, cell in CELLS.items()),
    *((f"{name}, all states", cell(3, return_sequences=True), (4, 2)) for name, cell in CELLS.items()),
    *((f"{name}, reversed", cell(2, return_sequences=True, reverse=True), (4, 3)) for name, cell in CELLS.items()),
    *((f"{name}, last of reversed", cell(2, reverse=True), (4, 3)) for name, cell in CELLS.items()),
    *((f"{name}, both ways", cell(2, bidirectional=True), (3, 2)) for name, cell in CELLS.items()),
    *(
        (f"{name}, all states both ways", cell(2, return_sequences=True, bidirectional=True), (3, 2))
        for name, cell in CELLS.items()
    ),
    *((f"{name} of one feature and one unit", cell(1), (2, 1)) for name, cell in CELLS.items()),
    ("simple rnn with relu", SimpleRnn(3, activation=RecurrentActivation.RELU), (3, 2)),
    ("attention", MultiHeadAttention(2), (3, 4)),
    ("attention with keys of their own size", MultiHeadAttention(3, key_size=2), (4, 5)),
    ("causal attention", MultiHeadAttention(2, causal=True), (4, 2)),
    ("attention of a single place", MultiHeadAttention(1), (1, 2)),
    ("positional encoding", PositionalEncoding(), (3, 5)),
    ("learned positional encoding", PositionalEncoding(learned=True), (3, 4)),
    ("a transformer's block", Residual((Residual((MultiHeadAttention(2),)), Dense(6), ReLU(), Dense(4))), (3, 4)),
]
