"""Tables of results, and on what they were measured."""

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from threadpoolctl import threadpool_info

RESULTS = Path(__file__).with_name("RESULTS.md")


@dataclass(frozen=True)
class Line:
    """One figure beside its target."""

    what: str
    measured: str
    ratio: str = ""
    target: str = ""
    reached: bool | None = None


def table(lines: Sequence[Line]) -> str:
    """The lines as a Markdown table whose columns stand straight."""
    marks = {True: "yes", False: "no", None: ""}
    rows = [["", "measured", "ours / theirs", "target", "reached"]]
    rows += [[line.what, line.measured, line.ratio, line.target, marks[line.reached]] for line in lines]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    )


def machine(bench_python: str) -> str:
    """Processor, memory, load and versions."""
    ask = "from importlib.metadata import version; print(*map(version, ('torch', 'scikit-learn')))"
    peers = subprocess.run([bench_python, "-c", ask], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return "\n".join(
        (
            f"* {model[1] if model else platform.machine()}, {os.cpu_count()} cores, {gib:.0f} GiB, "
            f"Linux {platform.release()}; load before the run {os.getloadavg()[0]:.1f}",
            f"* Python {platform.python_version()}, NumPy {version('numpy')} ({kernels()}), Ray {version('ray')}, "
            f"PyTorch {peers[0]}, scikit-learn {peers[1]}",
        )
    )


def kernels() -> str:
    """Which matrix products NumPy uses. What OPENBLAS_CORETYPE names may be far slower than the processor's own."""
    (blas,) = (each for each in threadpool_info() if each["user_api"] == "blas")
    asked = f", asked for by OPENBLAS_CORETYPE={name}" if (name := os.environ.get("OPENBLAS_CORETYPE")) else ""
    return f"{blas['internal_api']} {blas['version']} for {blas['architecture']}{asked}"


def write(command: str, about: str, results: str, path: Path = RESULTS) -> None:
    """Keeps the results."""
    path.write_text(
        "# Results\n\n"
        "Written by the command below; samples a second are medians over rounds in which all took turns, ratios are\n"
        "medians of the ratios within a round. What else ran on the machine meets all of them alike, but not every\n"
        "moment of them.\n\n"
        f"    {command}\n\n{about}\n\n{results}\n"
    )
