"""What a machine must have in common with the coordinator that it wants to work for: versions, and the time.

The coordinator says both every second in the store of names of its cluster, and whoever wants to join listens first.
What a coordinator said that is gone is never said anew, and so isn't taken for the word of one that is there.

    python -m service.cluster.terms HOST:PORT SECONDS     exits with a line that says why, if this machine must not join

A process of its own listens, so that the one that stays needs neither Ray's memory nor its threads.
"""

import json
import sys
import threading
import time
from contextlib import suppress
from importlib.metadata import version

from ray._raylet import GcsClient  # type: ignore[attr-defined]  # which is compiled
from ray.exceptions import AuthenticationError, RayError

from service.clock import date_of
from service.cluster.cluster import ClusterError
from service.cluster.node import TOKENS
from worker.versions import SAME, versions

NAMESPACE, KEY = b"chainrule", b"terms"

SAY_SECONDS = 1.0

LISTEN_SECONDS = 0.2

CALL_SECONDS = 5.0

MOST_SECONDS = 60.0
"""How far a machine's clock may be from the coordinator's."""


def terms() -> bytes:
    """What holds here, now."""
    return json.dumps({"versions": versions(), "time": time.time()}).encode()


def trouble(theirs: bytes) -> str:
    """What keeps this machine from working for a coordinator, and how to mend it; "" if nothing does."""
    told, now = json.loads(theirs), time.time()
    if told["versions"] != versions():
        return f"the coordinator has {told['versions']}, and this machine {versions()}; {SAME}"
    if abs(told["time"] - now) > MOST_SECONDS:
        return (
            f"the coordinator's clock says {date_of(told['time'])}, and this machine's {date_of(now)}; set the one "
            "that is wrong, such as by timedatectl set-ntp true"
        )
    return ""


def say(address: str, until: threading.Event) -> None:
    """Says what holds here, in the cluster at an address, until the event is set: from a thread of its own."""
    store = GcsClient(address=address)
    while True:
        with suppress(RayError):  # away for a moment: next time
            store.internal_kv_put(KEY, terms(), True, NAMESPACE, CALL_SECONDS)
        if until.wait(SAY_SECONDS):
            return


def hear(address: str, seconds: float) -> bytes:
    """What the coordinator of the cluster at an address says now. Raises ClusterError if it says nothing in time."""
    deadline = time.monotonic() + seconds
    left: bytes | None = None  # by somebody who may be gone
    while True:
        try:
            said: bytes | None = GcsClient(address=address).internal_kv_get(KEY, NAMESPACE, CALL_SECONDS)
        except AuthenticationError as error:
            raise ClusterError(f"the cluster doesn't take this machine's token; {TOKENS}") from error
        except RayError:
            said = None
        if said and left and said != left:
            return said
        left = said or left
        if time.monotonic() >= deadline:
            raise ClusterError(
                f"a cluster answers at {address}, but within {seconds:g} seconds no coordinator in it said which "
                f"versions it has; is one up, and is it of Chainrule {version('chainrule')}?"
            )
        time.sleep(LISTEN_SECONDS)


def main() -> None:
    """Listens, and exits."""
    _, address, seconds = sys.argv
    try:
        why = trouble(hear(address, float(seconds)))
    except ClusterError as error:
        why = str(error)
    if why:
        sys.exit(why)


if __name__ == "__main__":
    main()
