"""Limiter: requests a minute, tokens a minute and calls at one time, for each key.

Owns one token bucket (RFC-less, the classic one) per key and rate, refilled continuously; a bucket
holds one minute's worth. Deliberately forgets everything at restart: limits are about now.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from appliance.accounts.key import Key
from appliance.core.clock import Clock
from appliance.core.errors import RateLimited

NS_PER_MINUTE = 60_000_000_000
RETRY_MAX_S = 60


@dataclass(slots=True)
class _Bucket:
    """Level is kept in units x NS_PER_MINUTE so that refilling is exact in integers."""

    rate: int
    level: int
    at_ns: int

    def refill(self, now_ns: int) -> None:
        self.level = min(self.rate * NS_PER_MINUTE, self.level + (now_ns - self.at_ns) * self.rate)
        self.at_ns = now_ns

    def wait_s(self, units: int) -> int:
        """Return whole seconds until `units` fit, or until full when they never will."""
        missing = min(units, self.rate) * NS_PER_MINUTE - self.level
        return max(1, -(-missing // (self.rate * 1_000_000_000)))

    def remaining(self) -> int:
        return max(0, self.level // NS_PER_MINUTE)

    def reset_s(self) -> int:
        missing = self.rate * NS_PER_MINUTE - self.level
        return -(-missing // (self.rate * 1_000_000_000))


class Limiter:
    """Admits calls within their key's rates."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._requests: dict[str, _Bucket] = {}
        self._tokens: dict[str, _Bucket] = {}
        self._running: dict[str, int] = {}

    @contextmanager
    def call(self, key: Key) -> Iterator[None]:
        """Count one call of the key from now until the block ends.

        Raises:
            RateLimited: the key has used up its requests or runs as many calls as it may.
        """
        limits = key.limits
        running = self._running.get(key.id, 0)
        if limits.concurrency is not None and running >= limits.concurrency:
            raise RateLimited(limit=f"{limits.concurrency} calls at one time", retry_after_s=1)
        if limits.rpm is not None:
            _take(self._bucket(self._requests, key.id, limits.rpm), 1, "requests")
        self._running[key.id] = running + 1
        try:
            yield
        finally:
            left = self._running[key.id] - 1
            if left:
                self._running[key.id] = left
            else:
                del self._running[key.id]

    def take_tokens(self, key: Key, tokens: int) -> None:
        """Count a call's tokens.

        A call larger than the whole bucket passes when the bucket is full, and leaves it in debt.

        Raises:
            RateLimited: the key has used up its tokens.
        """
        if key.limits.tpm is not None:
            _take(self._bucket(self._tokens, key.id, key.limits.tpm), tokens, "tokens")

    def headers(self, key: Key) -> dict[str, str]:
        """Return `x-ratelimit-*` for the rates that the key has."""
        found: dict[str, str] = {}
        for noun, buckets, rate in (
            ("requests", self._requests, key.limits.rpm),
            ("tokens", self._tokens, key.limits.tpm),
        ):
            if rate is not None:
                bucket = self._bucket(buckets, key.id, rate)
                found[f"x-ratelimit-limit-{noun}"] = str(rate)
                found[f"x-ratelimit-remaining-{noun}"] = str(bucket.remaining())
                found[f"x-ratelimit-reset-{noun}"] = f"{bucket.reset_s()}s"
        return found

    def _bucket(self, buckets: dict[str, _Bucket], key_id: str, rate: int) -> _Bucket:
        now_ns = self._clock.monotonic_ns()
        bucket = buckets.get(key_id)
        if bucket is None or bucket.rate != rate:
            bucket = buckets[key_id] = _Bucket(rate, rate * NS_PER_MINUTE, now_ns)
        bucket.refill(now_ns)
        return bucket


def _take(bucket: _Bucket, units: int, noun: str) -> None:
    if bucket.level < min(units, bucket.rate) * NS_PER_MINUTE:
        raise RateLimited(
            limit=f"{bucket.rate} {noun} a minute",
            retry_after_s=min(RETRY_MAX_S, bucket.wait_s(units)),
        )
    bucket.level -= units * NS_PER_MINUTE
