"""How much one principal may ask for: calls in a second, and calls at a time.

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
