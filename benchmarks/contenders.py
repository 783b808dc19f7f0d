"""Whoever takes part in a comparison, behind one question: how many samples a second?"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.cases import DDP, PLAIN_RAY, PRODUCTS, SKLEARN, TORCH, Case

ROOT = Path(__file__).parent.parent

LONG_ENOUGH = 0.3
"""Seconds that a first turn must take for its rate to say how many samples the next turns need."""


class Contender(Protocol):
    """Trains a case."""

    def rate(self, seconds: float) -> float:
        """Trains for about `seconds` and returns the samples a second."""


@dataclass
class Processes:
    """Processes that train together, as told by lines; see benchmarks/peers/turns.py."""

    running: Sequence["subprocess.Popen[str]"]
    _usual: float = 0.0

    def rate(self, seconds: float) -> float:
        samples = 1
        while not self._usual:
            trained, taken = self._train(samples)
            if taken > LONG_ENOUGH:
                self._usual = trained / taken
            samples = 4 * trained
        trained, taken = self._train(int(self._usual * seconds))
        return trained / taken

    def _train(self, samples: int) -> tuple[int, float]:
        for process in self.running:
            assert process.stdin is not None  # noqa: S101 - it was opened with a pipe
            process.stdin.write(f"{samples}\n")
            process.stdin.flush()
        answers = [_answer(process) for process in self.running]
        return int(answers[0]["samples"]), max(answer["seconds"] for answer in answers)


@contextmanager
def processes(commands: Sequence[Sequence[str]], threads: int | None = None) -> Iterator[Processes]:
    """Starts processes and waits until they are ready; has them end by closing their input."""
    environment = dict(os.environ) | {"PYTHONPATH": str(ROOT)}
    if threads:
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    pipe = subprocess.PIPE
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                subprocess.Popen(command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, text=True)
            )
            for command in commands
        ]
        for process in running:
            _answer(process)
        yield Processes(running)


def peer(name: str, case: Case, bench_python: str) -> AbstractContextManager[Processes]:
    """One that ours is held against, by its name. `bench_python` is the Python that has PyTorch and scikit-learn."""
    return _PEERS[name](case.name, bench_python)


def _module(python: str, module: str, *arguments: str) -> list[str]:
    return [python, "-m", f"benchmarks.peers.{module}", *arguments]


def _ddp(case: str, python: str) -> AbstractContextManager[Processes]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    return processes([_module(python, "pytorch", case, rank, "2", port) for rank in ("0", "1")], threads=1)


_PEERS: Mapping[str, Callable[[str, str], AbstractContextManager[Processes]]] = {
    DDP: _ddp,
    TORCH: lambda case, python: processes([_module(python, "pytorch", case)]),
    SKLEARN: lambda case, python: processes([_module(python, "sklearn_mlp", case)]),
    PLAIN_RAY: lambda case, _: processes([_module(sys.executable, "plain_ray", case)]),
    PRODUCTS: lambda case, _: processes([_module(sys.executable, "products", case)] * 2, threads=1),
}


def _answer(process: "subprocess.Popen[str]") -> dict[str, float]:
    assert process.stdout is not None  # noqa: S101 - it was opened with a pipe
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"a process that takes part ended with status {process.wait()}")
    answer: dict[str, float] = json.loads(line)
    return answer
