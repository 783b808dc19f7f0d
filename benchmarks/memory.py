"""What a job takes of the memory, by PSS: a page that several processes share counts once."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cases import Case
from benchmarks.ours import Service, progress, service

LARGE_ROWS, SMALL_ROWS = 65_536, 1_024
FEATURES = 784
WIDE, NARROW = 4_096, 16
"""Hidden units of the networks whose difference is the trainer's vectors."""


@dataclass(frozen=True)
class Memory:
    """Copies of the dataset, and vectors of the trainer."""

    copies: dict[int, float]
    """How often the dataset is in memory, by workers."""
    vectors: float
    """How many vectors as long as the parameters the trainer has of its own, without the segment, with Adam."""


def measure(workers: tuple[int, ...] = (1, 4)) -> Memory:
    """The difference between a large dataset and a small one, and between a large network and a small one."""
    copies = {}
    for count in workers:
        with service() as large, service() as small:
            copies[count] = (_with_rows(large, LARGE_ROWS, count) - _with_rows(small, SMALL_ROWS, count)) / (
                4 * FEATURES * (LARGE_ROWS - SMALL_ROWS)
            )
    with service() as running:
        wide, narrow = (_trainer(running, units) for units in (WIDE, NARROW))
    return Memory(copies, (wide - narrow) / (4 * (_parameters(WIDE) - _parameters(NARROW))))


def _with_rows(running: Service, rows: int, workers: int) -> int:
    """PSS of all processes of a service while a job runs that has seen every row."""
    case = Case("memory", (FEATURES, 16, 10), 4096, "sgd", rows)
    job = running.create(case, workers, shards=4)
    next(samples for samples in progress(running, job) if samples >= 3 * rows)
    total = sum(_pss(pid) for pid in _tree(running.coordinator.pid))
    running.end(job)
    return total


def _trainer(running: Service, units: int) -> int:
    """Memory of its own that the trainer has, shared segments left out."""
    case = Case("memory", (FEATURES, units, 10), 1024, "adam", SMALL_ROWS)
    job = running.create(case)
    next(samples for samples in progress(running, job) if samples >= 2 * SMALL_ROWS)
    time.sleep(0.5)
    (trainer,) = (pid for pid in _tree(running.coordinator.pid) if "TrainerActor.start" in _title(pid) or _trains(pid))
    own = _private(trainer)
    running.end(job)
    return own


def _parameters(units: int) -> int:
    return (FEATURES + 1) * units + (units + 1) * 10


def _trains(pid: int) -> bool:
    return "TrainerActor" in _title(pid) and "/dev/shm/chainrule-" in _read(pid, "maps")  # noqa: S108 - a look at it


def _tree(root: int) -> Iterator[int]:
    """The process and all below it."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and (stat := _read(int(path.name), "stat")):
            parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(path.name))
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting += parents.get(pid, [])


def _title(pid: int) -> str:
    return _read(pid, "cmdline").replace("\0", " ")


def _pss(pid: int) -> int:
    return sum(int(kib) << 10 for kib in re.findall(r"^Pss:\s+(\d+) kB", _read(pid, "smaps_rollup"), re.MULTILINE))


def _private(pid: int) -> int:
    """Anonymous memory in bytes."""
    return sum(
        int(kib) << 10 for kib in re.findall(r"^Anonymous:\s+(\d+) kB", _read(pid, "smaps_rollup"), re.MULTILINE)
    )


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:
        return ""  # it has ended
