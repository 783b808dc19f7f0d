"""The layers, one file per idea. `LAYERS` names each as the contract does."""

from collections.abc import Mapping
from types import MappingProxyType

from worker.layers.activations import ReLU, Sigmoid, Tanh
from worker.layers.dense import Dense
from worker.layers.layer import Backward, Context, Layer, Parameter, Params

LAYERS: Mapping[str, type[Layer]] = MappingProxyType({"dense": Dense, "relu": ReLU, "tanh": Tanh, "sigmoid": Sigmoid})

__all__ = ["LAYERS", "Backward", "Context", "Dense", "Layer", "Parameter", "Params", "ReLU", "Sigmoid", "Tanh"]
