"""python -m tests.chaos: runs a campaign, and tells how it went."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.chaos.campaign import Campaign, table
from tests.chaos.crashes import Broken, Crashes
from tests.chaos.faults import FAULTS


def main() -> int:
    """Returns 1 if a fault was not survived, or none was made."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="from which the moments of the faults follow")
    parser.add_argument("--rounds", type=int, default=2, help="how often each fault is made")
    parser.add_argument("--fault", action="append", choices=list(FAULTS), help="only this one; may be repeated")
    parser.add_argument("--kills", type=int, default=50, help="of a coordinator without Ray while a client works")
    parser.add_argument("--seconds", type=float, default=1800.0, help="after which no further fault is begun")
    parser.add_argument("--epochs", type=int, default=Campaign.epochs, help="how long the job is")
    options = parser.parse_args()
    if options.kills and not _holds(options.seed, options.kills):
        return 1
    campaign = Campaign(options.seed, options.epochs)
    results = campaign.run(options.fault or list(FAULTS), options.rounds, options.seconds, _tell)
    _tell(f"\nseed {options.seed}\n{table(results)}")
    return int(not results or any(result.problem for result in results))


def _holds(seed: int, kills: int) -> bool:
    """Whether what was acknowledged holds, however often the coordinator is killed. A client lives for ten kills."""
    acknowledged = 0
    for number in range(-(-kills // 10)):
        with tempfile.TemporaryDirectory(prefix="chaos-") as directory:
            crashes = Crashes(Path(directory), seed * 1_000 + number)
            try:
                crashes.run(min(kills - 10 * number, 10))
            except Broken as problem:
                _tell(f"after at most {10 * number + 10} kills: {problem}")
                return False
            acknowledged += crashes.acknowledged
    _tell(f"{kills} kills, {acknowledged} acknowledged calls: all hold")
    return True


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
