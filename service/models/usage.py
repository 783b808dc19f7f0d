"""How much predicting there was, counted as it happens, for whoever wants to read it."""

import threading
from bisect import bisect_left

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds in seconds: from a row to a batch that fills a message."""

OUTCOMES = ("answered", "refused", "cancelled", "failed")


class Usage:
    """Requests by outcome, rows, and a histogram of seconds. Written by the event loop, read by anyone."""

    def __init__(self) -> None:
        self.requests = dict.fromkeys(OUTCOMES, 0)
        self.rows = 0
        self.counts = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0
        self._lock = threading.Lock()

    def count(self, outcome: str, seconds: float, rows: int = 0) -> None:
        """Notes a request."""
        with self._lock:
            self.requests[outcome] += 1
            self.rows += rows
            self.counts[bisect_left(BUCKETS, seconds)] += 1
            self.seconds += seconds
