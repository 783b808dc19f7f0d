"""A campaign: every fault some times, each on a coordinator of its own, at moments that follow from a seed."""

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random

import grpc

from tests.chaos.coordinator import NotSurvived
from tests.chaos.faults import FAULTS, small_disk
from tests.chaos.stage import Skipped, stage
from tests.chaos.training import Yardstick, measure


@dataclass(frozen=True)
class Result:
    """How a fault went, once."""

    fault: str
    seconds: float
    problem: str = ""
    skipped: str = ""


@dataclass(frozen=True)
class Campaign:
    """What is to be done to which job."""

    seed: int
    epochs: int = 120

    def undisturbed(self) -> Yardstick:
        """What the job comes to if it is left alone."""
        with (
            tempfile.TemporaryDirectory(prefix="chaos-") as home,
            stage(Path(home), Random(self.seed), self.epochs, None) as quiet,
        ):
            return measure(quiet.job())

    def make(self, fault: str, number: int, yardstick: Yardstick) -> Result:
        """Has a fault happen for the `number`th time, on a coordinator of its own."""
        random = Random(f"{self.seed} {fault} {number}")
        began = time.monotonic()
        home = Path(tempfile.mkdtemp(prefix="chaos-"))
        try:
            with ExitStack() as stack:
                if fault == "disk-full":
                    stack.enter_context(small_disk(home / "data"))
                FAULTS[fault](stack.enter_context(stage(home, random, self.epochs, yardstick)))
        except Skipped as reason:
            return Result(fault, time.monotonic() - began, skipped=str(reason))
        except (NotSurvived, grpc.RpcError) as problem:
            return Result(fault, time.monotonic() - began, f"{problem} (what it left is in {home})")
        shutil.rmtree(home, ignore_errors=True)
        return Result(fault, time.monotonic() - began)

    def run(self, faults: Sequence[str], rounds: int, seconds: float, tell: Callable[[str], None]) -> list[Result]:
        """Has all faults happen, round by round, as long as there is time for one more."""
        began = time.monotonic()
        yardstick = self.undisturbed()
        tell(f"undisturbed: {yardstick.parameters_sha256[:12]} after {self.epochs} epochs")
        results: list[Result] = []
        for number in range(rounds):
            for fault in faults:
                if time.monotonic() - began < seconds:
                    result = self.make(fault, number, yardstick)
                    results.append(result)
                    tell(f"{fault}, round {number + 1}, {result.seconds:.1f} s: {_outcome(result)}")
        return results


def table(results: Sequence[Result]) -> str:
    """Fault, times, survived, seconds; a line for each fault that happened, or was skipped."""
    lines = [f"{'fault':<24}{'times':>6}{'survived':>10}{'seconds':>9}"]
    for fault in FAULTS:
        of_it = [result for result in results if result.fault == fault]
        happened = [result for result in of_it if not result.skipped]
        if happened:
            survived = sum(not result.problem for result in happened)
            mean = sum(result.seconds for result in happened) / len(happened)
            lines.append(f"{fault:<24}{len(happened):>6}{survived:>10}{mean:>9.1f}")
        elif of_it:
            lines.append(f"{fault:<24}  skipped: {of_it[0].skipped}")
    return "\n".join(lines)


def _outcome(result: Result) -> str:
    if result.skipped:
        return f"skipped, {result.skipped}"
    return f"NOT SURVIVED: {result.problem}" if result.problem else "survived"
