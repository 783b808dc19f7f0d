"""PyTorch: one process with all cores, or DistributedDataParallel over gloo with one thread in each of its processes.

    python -m benchmarks.peers.pytorch CASE                     one process, two threads
    python -m benchmarks.peers.pytorch CASE RANK SIZE PORT      one of SIZE processes

The data is a tensor in memory, a batch is taken by an index, the optimizer is the fused one: what a user would pick who
cares about speed. Gradients are averaged by DDP in its default buckets.
"""

import os
import sys
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.cases import CASES, Case
from benchmarks.peers.turns import take_turns


class Words(nn.Module):  # type: ignore[misc]  # torch is in another environment
    """An embedding, an LSTM of which the last state counts, and a dense layer."""

    def __init__(self, words: int, size: int, units: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, size)
        self.lstm = nn.LSTM(size, units, batch_first=True)
        self.dense = nn.Linear(units, classes)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(self.embedding(x))
        return self.dense(states[:, -1])


def network(case: Case) -> nn.Module:
    """Dense layers with ReLU between them, before them convolutions, if there are any; or what is for words."""
    if case.length:
        return Words(*case.units)
    layers: list[nn.Module] = [nn.Unflatten(1, (1, case.side, case.side))] if case.filters else []
    for inputs, outputs in pairwise((1, *case.filters)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2)]
    features = case.units[0]
    if case.filters:
        layers += [nn.Flatten()]
        features = case.filters[-1] * (case.side >> len(case.filters)) ** 2
    for inputs, outputs in pairwise((features, *case.units[1:])):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def batches(case: Case, rank: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's share of one batch after the other, shuffled anew every epoch."""
    data = torch.Generator().manual_seed(0)
    if case.length:
        x = torch.randint(case.units[0], (case.rows, case.length), generator=data)
    else:
        x = torch.rand(case.rows, case.units[0], generator=data)
    y = torch.randint(case.units[-1], (case.rows,), generator=data)
    while True:
        order = torch.randperm(case.rows, generator=data)
        for start in range(0, case.rows, case.batch):
            rows = order[start : start + case.batch][rank::size]
            yield x[rows], y[rows]


def main(name: str, rank: int = 0, size: int = 1, port: int = 0) -> None:
    """Trains whenever asked to."""
    case = CASES[name]
    torch.manual_seed(0)
    torch.set_num_threads(1 if size > 1 else 2)
    model = network(case)
    if size > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        torch.distributed.init_process_group("gloo", rank=rank, world_size=size)
        model = DistributedDataParallel(model)
    rule = torch.optim.SGD if case.optimizer == "sgd" else torch.optim.Adam
    optimizer = rule(model.parameters(), lr=case.learning_rate, fused=True)
    stream = batches(case, rank, size)

    def train(samples: int) -> int:
        steps = max(1, samples // case.batch)
        for _ in range(steps):
            x, y = next(stream)
            optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
        return steps * case.batch

    take_turns(train)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
