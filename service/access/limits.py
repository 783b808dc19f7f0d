"""How much one caller may ask for: a principal calls in a second, and calls at a time; a stranger the latter.

They keep one from taking what the others need; what the service can bear altogether is limited where it is borne.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from service.errors import ResourceExhausted


@dataclass
class _Bucket:
    """Calls that may still be made at a moment; they come back with time, up to a second's worth."""

    left: float
    moment: float


class Limits:
    """The limits of each principal, by name. For one thread."""

    def __init__(
        self, calls_per_second: float, concurrent_calls: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """A second's worth of calls, or one if that is less, may come at once."""
        self._rate = calls_per_second
        self._most = max(calls_per_second, 1.0)
        self._concurrent = concurrent_calls
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}
        self._open: Counter[str] = Counter()

    def begin(self, name: str) -> None:
        """Counts a call that begins. Raises ResourceExhausted, and doesn't count it as open then."""
        now = self._clock()
        bucket = self._buckets.setdefault(name, _Bucket(self._most, now))
        bucket.left = min(bucket.left + (now - bucket.moment) * self._rate, self._most)
        bucket.moment = now
        who = f"{name!r} makes" if name else "all callers together make"
        if bucket.left < 1:
            raise ResourceExhausted(
                f"{who} more than {self._rate:,g} calls a second, which is the most (--calls-per-second)",
                reason="TOO_MANY_CALLS",
                retry_seconds=(1 - bucket.left) / self._rate,
            )
        if self._open[name] >= self._concurrent:
            raise ResourceExhausted(
                f"{who} {self._concurrent:,} calls at this moment, which is the most (--concurrent-calls); "
                "end some, such as watches",
                reason="TOO_MANY_CONCURRENT_CALLS",
            )
        bucket.left -= 1
        self._open[name] += 1

    def end(self, name: str) -> None:
        """Counts a call that began and has ended."""
        self._open[name] -= 1
        if not self._open[name]:
            del self._open[name]


class OpenCalls:
    """Calls at a time of those who needn't say who they are, by where they come from. For one thread."""

    def __init__(self, most_each: int, most: int) -> None:
        """`most_each` from one address, `most` from all."""
        self._most_each = most_each
        self._most = most
        self._open: Counter[str] = Counter()

    def begin(self, address: str) -> None:
        """Counts a call that begins. Raises ResourceExhausted, and doesn't count it then."""
        if self._open[address] >= self._most_each or self._open.total() >= self._most:
            raise ResourceExhausted(
                f"of calls that need no token there may be {self._most_each:,} at a time from one address, and "
                f"{self._most:,} altogether; end some, such as watches of the health service",
                reason="TOO_MANY_CONCURRENT_CALLS",
            )
        self._open[address] += 1

    def end(self, address: str) -> None:
        """Counts a call that began and has ended."""
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]
