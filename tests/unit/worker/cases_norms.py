"""Cases of activations, normalisation, noise and circuits."""

from worker.arrays import Shape
from worker.layers import (
    ELU,
    GELU,
    BatchNorm,
    Dense,
    GaussianLatent,
    GaussianNoise,
    GroupNorm,
    Layer,
    LayerNorm,
    LeakyReLU,
    Quantum,
    Residual,
    SiLU,
    Softmax,
    Softplus,
)

IMAGE = (3, 4, 2)

CASES: list[tuple[str, Layer, Shape]] = [
    ("leaky_relu", LeakyReLU(), (4,)),
    ("leaky_relu on an image", LeakyReLU(0.3), IMAGE),
    ("elu", ELU(), (4,)),
    ("elu on an image", ELU(1.7), IMAGE),
    ("gelu", GELU(), (4,)),
    ("gelu on an image", GELU(), IMAGE),
    ("gelu, approximate", GELU(approximate=True), (4,)),
    ("silu", SiLU(), (4,)),
    ("softplus", Softplus(), IMAGE),
    ("softmax", Softmax(), (4,)),
    ("softmax on an image", Softmax(), IMAGE),
    ("batch_norm", BatchNorm(), (4,)),
    ("batch_norm on an image", BatchNorm(0.5, 0.1), IMAGE),
    ("batch_norm within a residual block", Residual((BatchNorm(), Dense(4))), (4,)),
    ("layer_norm", LayerNorm(), (4,)),
    ("layer_norm on an image", LayerNorm(0.1), (3, 2, 4)),
    ("group_norm", GroupNorm(2), (6,)),
    ("group_norm of one group", GroupNorm(1), (6,)),
    ("group_norm on an image", GroupNorm(2, 0.1), (3, 2, 4)),
    ("group_norm of single channels", GroupNorm(2), IMAGE),
    ("gaussian_noise", GaussianNoise(), (4,)),
    ("gaussian_noise on an image", GaussianNoise(2.0), IMAGE),
    ("gaussian_latent", GaussianLatent(), (6,)),
    ("gaussian_latent on an image", GaussianLatent(0.3), IMAGE),
    ("quantum of one qubit", Quantum(1), (1,)),
    ("quantum of two qubits", Quantum(2, 1), (2,)),
    ("quantum", Quantum(3), (3,)),
]
