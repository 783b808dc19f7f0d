"""Fashion-MNIST: 70,000 images of clothes in the format of MNIST (Xiao, Rasul and Vollgraf 2017)."""

import gzip
from pathlib import Path

import numpy as np

from examples.data.archives import Missing
from examples.data.columns import Array

FOLDER = Path("/usr/share/datasets/fashion-mnist")


def fashion_mnist(_: Path, folder: Path = FOLDER) -> dict[str, Array]:
    """The 60,000 images to learn from: x (28, 28), bytes; y, which of 10 kinds. Raises Missing."""
    try:
        images = gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes())
        labels = gzip.decompress((folder / "train-labels-idx1-ubyte.gz").read_bytes())
    except FileNotFoundError as error:
        raise Missing("Fashion-MNIST is a package of Debian: apt-get install dataset-fashion-mnist") from error
    # IDX: a header of 4 bytes and 4 for every axis, then the numbers.
    return {
        "x": np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28),
        "y": np.frombuffer(labels, np.uint8, offset=8),
    }
