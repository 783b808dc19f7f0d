"""python -m tests.fuzz: calls every method with messages that are almost right, for as long as it is told to."""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz.calling import METHODS, no_thread_dies, resident_bytes
from tests.fuzz.campaign import attack
from tests.fuzz.world import World, world

CALLS = 100
"""Of one method, before the next one's turn."""


def main() -> int:
    """Returns 1 if anything came back that must not, or a thread died."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="after which no further method is begun")
    parser.add_argument("--seed", type=int, default=0, help="from which all messages follow")
    parser.add_argument("--method", action="append", choices=sorted(METHODS), help="only this one; may be repeated")
    options = parser.parse_args()
    paths = options.method or list(METHODS)
    with TemporaryDirectory() as directory, no_thread_dies() as died, world(Path(directory)) as found:
        failed = campaign(found, paths, options.seed, time.monotonic() + options.seconds)
    _tell(f"seed {options.seed}; methods that failed: {failed or 'none'}; threads that died: {died or 'none'}")
    return int(bool(failed or died))


def campaign(found: World, paths: list[str], seed: int, end: float) -> list[str]:
    """Attacks one method after the other, over and over; gives those that failed."""
    methods: dict[str, Counter[str]] = {path: Counter() for path in paths}
    failed: list[str] = []
    turn = 0
    while time.monotonic() < end and len(failed) < len(methods):
        for path in (path for path in methods if path not in failed and time.monotonic() < end):
            try:
                methods[path] += attack(found, path, CALLS, seed + turn)
            except AssertionError as error:
                failed.append(path)
                _tell(f"\n{error}\n")
        turn += 1
        calls = sum(codes.total() for codes in methods.values())
        _tell(f"{calls:9,} calls, {resident_bytes() / 2**20:6.0f} MiB, {len(failed)} methods failed")
    for path, codes in methods.items():
        _tell(f"{path:60} {', '.join(f'{code} {count:,}' for code, count in codes.most_common())}")
    return failed


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
