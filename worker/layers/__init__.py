"""The layers, one file per idea. `LAYERS` names each as the contract does."""

from collections.abc import Mapping
from types import MappingProxyType

from worker.layers.activations import ELU, LeakyReLU, ReLU, Sigmoid, SiLU, Softmax, Softplus, Tanh
from worker.layers.dense import Dense
from worker.layers.dropout import Dropout
from worker.layers.gelu import GELU
from worker.layers.layer import Backward, Context, Draw, Layer, Parameter, Params
from worker.layers.noise import GaussianLatent, GaussianNoise
from worker.layers.normalization import BatchNorm, GroupNorm, LayerNorm
from worker.layers.quantum import Quantum
from worker.layers.stack import Concatenate, Residual, Stack

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
    }
)

__all__ = [
    "ELU",
    "GELU",
    "LAYERS",
    "Backward",
    "BatchNorm",
    "Concatenate",
    "Context",
    "Dense",
    "Draw",
    "Dropout",
    "GaussianLatent",
    "GaussianNoise",
    "GroupNorm",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Parameter",
    "Params",
    "Quantum",
    "ReLU",
    "Residual",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Stack",
    "Tanh",
]
