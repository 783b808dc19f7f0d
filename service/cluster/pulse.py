"""Whether the two Ray processes are there that a coordinator can't do without: the cluster's head, and the raylet of
its own machine.

Ray itself takes up to a minute to notice that one of them is gone, meanwhile its calls hang, and then it ends the
process without a word. Whether somebody listens at a port is known at once.
"""

import socket
import threading
import time
from collections.abc import Callable

import ray

LOOK_SECONDS = 0.25
CONNECT_SECONDS = 5.0

NO_HEAD = "its head has ended or can't be reached"
NO_RAYLET = "the raylet of this machine has ended"


class Pulse:
    """Feels whether a cluster that was just connected to is alive."""

    def __init__(self, head_seconds: float) -> None:
        """`head_seconds` is how long the head may be away before the cluster is given up."""
        context = ray.get_runtime_context()
        own = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())  # type: ignore[no-untyped-call]
        host, _, port = context.gcs_address.rpartition(":")
        self._head = (host.strip("[]"), int(port))
        self._raylet = (str(own["NodeManagerAddress"]), int(own["NodeManagerPort"]))
        self._head_seconds = head_seconds
        self._closed = threading.Event()

    def missing(self) -> str:
        """Which process is not there now; "" if all is well."""
        if not _is_there(self._raylet):
            return NO_RAYLET
        return "" if _is_there(self._head) else NO_HEAD

    def watch(self, lost: Callable[[str], None]) -> None:
        """Calls `lost` with the reason, from a thread, once the cluster is gone for good."""
        threading.Thread(target=self._watch, args=(lost,), name="pulse", daemon=True).start()

    def close(self) -> None:
        """Watches no longer."""
        self._closed.set()

    def _watch(self, lost: Callable[[str], None]) -> None:
        well = time.monotonic()
        while not self._closed.wait(LOOK_SECONDS):
            missing, now = self.missing(), time.monotonic()
            patience = self._head_seconds if missing == NO_HEAD else 0.0
            if not missing:
                well = now
            elif now - well >= patience and not self._closed.is_set():
                lost(missing)
                return


def _is_there(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, CONNECT_SECONDS).close()
    except OSError:
        return False
    return True
