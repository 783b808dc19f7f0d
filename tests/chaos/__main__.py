"""python -m tests.chaos: runs a campaign, and tells how it went."""

import argparse
import sys

from tests.chaos.campaign import Campaign, table
from tests.chaos.faults import FAULTS


def main() -> int:
    """Returns 1 if a fault was not survived, or none was made."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="from which the moments of the faults follow")
    parser.add_argument("--rounds", type=int, default=2, help="how often each fault is made")
    parser.add_argument("--fault", action="append", choices=list(FAULTS), help="only this one; may be repeated")
    parser.add_argument("--seconds", type=float, default=1800.0, help="after which no further fault is begun")
    parser.add_argument("--epochs", type=int, default=Campaign.epochs, help="how long the job is")
    options = parser.parse_args()
    campaign = Campaign(options.seed, options.epochs)
    results = campaign.run(options.fault or list(FAULTS), options.rounds, options.seconds, _tell)
    _tell(f"\nseed {options.seed}\n{table(results)}")
    return int(not results or any(result.problem for result in results))


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
