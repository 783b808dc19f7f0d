"""Runs the examples through the real product, and prints what they reach beside what is expected.

python -m examples                          all of them, with a coordinator started for it
python -m examples digits fashion-cnn       some
python -m examples --quick                  each shortened to one epoch of a few rows
python -m examples digits --server HOST:PORT    on a coordinator that is running
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from chainrule import ChainruleError, Client
from chainrule.coordinator import embedded
from chainrule.resources import bare_id
from chainrule.v1.training_job_pb2 import TrainingJob
from examples.catalog import EXAMPLES, Example
from examples.data.archives import Missing
from examples.running import Outcome, Runner

LINE = "{:<26} {:>20} {:>10} {:>8}  {}"
WORKERS = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs them; 0 if none failed, and each reached what is expected of it."""
    options = parsed(arguments)
    print(LINE.format("example", "score reached", "expected", "seconds", ""))
    failures = 0
    models: dict[str, str] = {}
    with server(options.server) as address, Client(address) as client:
        runner = Runner(client, short=options.quick)
        for example in in_order(options.examples):
            failures += not run(runner, example, models)
    return 1 if failures else 0


def run(runner: Runner, example: Example, models: dict[str, str]) -> bool:
    """Runs one and prints its line; False if it failed or fell short. Without its data it is skipped."""
    try:
        if example.after and example.after not in models:
            raise Missing(f"{example.after}, whose model it starts from, made none")
        outcome = runner.run(example, models)
    except Missing as missing:
        say(example, "", "", f"skipped: {missing}")
        return True
    except ChainruleError as error:
        say(example, "", "", f"failed: {error}")
        return False
    # In short, the few held-out rows may be all of one class, of which some scores make nothing.
    if outcome.job.state != TrainingJob.SUCCEEDED or (outcome.score is None and not runner.short):
        say(example, "", f"{outcome.seconds:.0f}", f"failed: {reason(outcome)}")
        return False
    models[example.name] = outcome.job.result.model
    score = "" if outcome.score is None else f"{example.score} {outcome.score:.4f}"
    is_good = runner.short or (outcome.score is not None and example.is_reached(outcome.score))
    say(example, score, f"{outcome.seconds:.0f}", "ran" if runner.short else "reached" if is_good else "fell short")
    return is_good


def reason(outcome: Outcome) -> str:
    """Why a job has no score."""
    return (
        outcome.job.error.message or f"its job has no such score; see chainrule jobs show {bare_id(outcome.job.name)}"
    )


def say(example: Example, score: str, seconds: str, verdict: str) -> None:
    """Prints a line of the table at once."""
    print(LINE.format(example.name, score, f"{example.expected:g}", seconds, verdict).rstrip(), flush=True)


def in_order(names: Sequence[str]) -> Iterator[Example]:
    """The examples of these names (without any, all), each after the one whose model it starts from."""
    wanted = set(names or EXAMPLES)
    wanted |= {EXAMPLES[name].after for name in wanted}
    return (example for example in EXAMPLES.values() if example.name in wanted)


@contextmanager
def server(address: str | None) -> Iterator[str]:
    """Where to run them: at the address, or by a coordinator that is there as long as the block lasts."""
    if address:
        yield address
        return
    with TemporaryDirectory(prefix="chainrule-examples-") as folder, embedded(Path(folder), workers=WORKERS) as started:
        yield started.address


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m examples", description="Runs the examples, and says what they reach."
    )
    parser.add_argument("examples", nargs="*", metavar="EXAMPLE", help=", ".join(EXAMPLES))
    parser.add_argument("--quick", action="store_true", help="one epoch of a few rows each: do they run at all?")
    parser.add_argument("--server", metavar="HOST:PORT", help="run there instead of on a coordinator started for it")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.examples if name not in EXAMPLES]:
        parser.error(f"there is no example {unknown[0]}; there are {', '.join(EXAMPLES)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
