"""The layers, one file per idea. `LAYERS` names each as the contract does."""

from collections.abc import Mapping
from types import MappingProxyType

from worker.layers.activations import ELU, LeakyReLU, ReLU, Sigmoid, SiLU, Softmax, Softplus, Tanh
from worker.layers.attention import MultiHeadAttention
from worker.layers.convolution import Conv1d, Conv1dTranspose, Conv2d, Conv2dTranspose
from worker.layers.dense import Dense
from worker.layers.dropout import Dropout
from worker.layers.embedding import Embedding
from worker.layers.gelu import GELU
from worker.layers.gru import Gru
from worker.layers.layer import (
    Backward,
    CanDie,
    CanSaturate,
    Context,
    Draw,
    Layer,
    Observer,
    Parameter,
    Params,
)
from worker.layers.lstm import Lstm
from worker.layers.noise import GaussianLatent, GaussianNoise
from worker.layers.normalization import BatchNorm, GroupNorm, LayerNorm
from worker.layers.pooling import GlobalPool, Pool1d, Pool2d, Pooling
from worker.layers.positions import PositionalEncoding
from worker.layers.quantum import Quantum
from worker.layers.rescale import Rescale
from worker.layers.reshaping import Flatten, Reshape
from worker.layers.simple_rnn import RecurrentActivation, SimpleRnn
from worker.layers.stack import Concatenate, Leaf, Residual, Stack, leaves
from worker.layers.windows import Padding

LAYERS: Mapping[str, type[Layer]] = MappingProxyType(
    {
        "dense": Dense,
        "relu": ReLU,
        "tanh": Tanh,
        "sigmoid": Sigmoid,
        "dropout": Dropout,
        "residual": Residual,
        "concatenate": Concatenate,
        "leaky_relu": LeakyReLU,
        "elu": ELU,
        "gelu": GELU,
        "silu": SiLU,
        "softplus": Softplus,
        "softmax": Softmax,
        "batch_norm": BatchNorm,
        "layer_norm": LayerNorm,
        "group_norm": GroupNorm,
        "gaussian_noise": GaussianNoise,
        "gaussian_latent": GaussianLatent,
        "quantum": Quantum,
        "simple_rnn": SimpleRnn,
        "lstm": Lstm,
        "gru": Gru,
        "multi_head_attention": MultiHeadAttention,
        "positional_encoding": PositionalEncoding,
        "conv1d": Conv1d,
        "conv2d": Conv2d,
        "conv1d_transpose": Conv1dTranspose,
        "conv2d_transpose": Conv2dTranspose,
        "pool1d": Pool1d,
        "pool2d": Pool2d,
        "global_pool": GlobalPool,
        "flatten": Flatten,
        "reshape": Reshape,
        "rescale": Rescale,
        "embedding": Embedding,
    }
)

KINDS: Mapping[type[Layer], str] = MappingProxyType({layer: kind for kind, layer in LAYERS.items()})
"""What the contract calls a layer."""

__all__ = [
    "ELU",
    "GELU",
    "KINDS",
    "LAYERS",
    "Backward",
    "BatchNorm",
    "CanDie",
    "CanSaturate",
    "Concatenate",
    "Context",
    "Conv1d",
    "Conv1dTranspose",
    "Conv2d",
    "Conv2dTranspose",
    "Dense",
    "Draw",
    "Dropout",
    "Embedding",
    "Flatten",
    "GaussianLatent",
    "GaussianNoise",
    "GlobalPool",
    "GroupNorm",
    "Gru",
    "Layer",
    "LayerNorm",
    "Leaf",
    "LeakyReLU",
    "Lstm",
    "MultiHeadAttention",
    "Observer",
    "Padding",
    "Parameter",
    "Params",
    "Pool1d",
    "Pool2d",
    "Pooling",
    "PositionalEncoding",
    "Quantum",
    "ReLU",
    "RecurrentActivation",
    "Rescale",
    "Reshape",
    "Residual",
    "SiLU",
    "Sigmoid",
    "SimpleRnn",
    "Softmax",
    "Softplus",
    "Stack",
    "Tanh",
    "leaves",
]
