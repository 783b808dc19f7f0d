"""Offers this machine's cores to a coordinator: joins the Ray cluster that it started with --ray-listen.

Nothing of a job is kept here. A node that is stopped or lost costs its jobs a recomputation of the step at hand.
"""

import argparse
import os
import signal
import sys
import threading

from service.clock import clock_trouble
from service.cluster.cluster import ClusterError
from service.cluster.node import answers, await_head, check_terms, check_token, join

LOOK_SECONDS = 0.25
"""How often to look whether the node runs and the cluster is there. Ray itself would take a minute to notice."""

LOOKS = 3
"""After how many looks in a row without an answer the cluster is taken for lost. A head that is started again at once
is away for a second or two."""


def main() -> None:
    """Joins, and stays until it is told to stop.

    Exits with a line that says why: with 2 if it can't join, with 1 if the cluster is lost, once it is back or
    `--wait-seconds` have passed, for whoever supervises it to start it again.
    """
    options = _options()
    joined, stop = threading.Event(), threading.Event()

    def stopped(*_: object) -> None:
        stop.set()
        if not joined.is_set():
            sys.exit()  # out of whatever it waits for

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stopped)
    try:
        if trouble := clock_trouble():
            raise ClusterError(trouble)
        check_token()
        await_head(options.address, options.wait_seconds)
        check_terms(options.address, options.wait_seconds)
        node = join(options.address, options.workers)
        joined.set()
    except (ClusterError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    print(f"offers {options.workers} workers to the cluster at {options.address}", flush=True)
    missed = 0
    while not stop.wait(LOOK_SECONDS) and node.runs() and missed < LOOKS:
        missed = 0 if answers(options.address) else missed + 1
    node.close()
    if not stop.is_set():
        sys.stderr.write(f"the cluster at {options.address} is gone; join it again\n")
        try:
            await_head(options.address, options.wait_seconds)
        except ClusterError as error:
            sys.stderr.write(f"{error}\n")
        sys.exit(1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m service.node", description=__doc__)
    parser.add_argument("address", metavar="HOST:PORT", help="of the coordinator's Ray cluster")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="how many to offer (default: one a core)"
    )
    parser.add_argument(
        "--wait-seconds", type=float, default=120.0, help="how long to wait for the cluster (default: %(default)g)"
    )
    options = parser.parse_args()
    if options.workers < 1:
        parser.error(f"--workers is {options.workers}; must be 1 or more")
    return options


if __name__ == "__main__":
    main()
