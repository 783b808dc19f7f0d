"""The layers, one file per idea. `LAYERS` names each as the contract does."""

from collections.abc import Mapping
from types import MappingProxyType

from worker.layers.activations import ReLU, Sigmoid, Tanh
from worker.layers.dense import Dense
from worker.layers.dropout import Dropout
from worker.layers.layer import Backward, Context, Draw, Layer, Parameter, Params
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
    }
)

__all__ = [
    "LAYERS",
    "Backward",
    "Concatenate",
    "Context",
    "Dense",
    "Draw",
    "Dropout",
    "Layer",
    "Parameter",
    "Params",
    "ReLU",
    "Residual",
    "Sigmoid",
    "Stack",
    "Tanh",
]
