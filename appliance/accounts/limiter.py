"""Limiter: requests a minute, tokens a minute and calls at one time, for each key.

Owns one token bucket for each key and rate. Everything is forgotten at a restart: limits are about
now.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from appliance.accounts.bucket import Bucket
from appliance.accounts.key import Key
from appliance.core.clock import Clock
from appliance.core.errors import (
    ApplianceError,
    DailyBudgetExceeded,
    InvalidRequest,
    RateLimited,
    RetryableError,
)

OF_THE_KEY = (RateLimited, DailyBudgetExceeded)
"""Refusals for the key's own limits. They use up the call's request, or refusing would be free; a
call beyond the key's concurrency is refused before its request is counted."""


class Limiter:
    """Admits calls within their key's rates."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._requests: dict[str, Bucket] = {}
        self._tokens: dict[str, Bucket] = {}
        self._running: dict[str, int] = {}

    @contextmanager
    def call(self, key: Key) -> Iterator[None]:
        """Count one call of the key from now until the block ends.

        A call that the server refuses for its own sake (a model that is being loaded, a full queue)
        does not count: its client was told to come back.

        Raises:
            RateLimited: the key has used up its requests or runs as many calls as it may.
        """
        limits = key.limits
        running = self._running.get(key.id, 0)
        if limits.concurrency is not None and running >= limits.concurrency:
            raise RateLimited(limit=f"{limits.concurrency} calls at one time", retry_after_s=1)
        if limits.rpm is not None:
            requests = self._bucket(self._requests, key.id, limits.rpm)
            if not requests.take(1):
                raise RateLimited(
                    limit=f"{limits.rpm} requests a minute", retry_after_s=requests.wait_s(1)
                )
        self._running[key.id] = running + 1
        try:
            yield
        except RetryableError as error:
            if limits.rpm is not None and not isinstance(error, OF_THE_KEY):
                self._bucket(self._requests, key.id, limits.rpm).give_back(1)
            raise
        finally:
            left = self._running[key.id] - 1
            if left:
                self._running[key.id] = left
            else:
                del self._running[key.id]

    @contextmanager
    def tokens(self, key: Key, tokens: int) -> Iterator[None]:
        """Count a call's tokens; they are given back if the block ends with a refusal.

        Raises:
            InvalidRequest: no minute of this key has so many.
            RateLimited: the key has used up its tokens.
        """
        self._take_tokens(key, tokens)
        try:
            yield
        except ApplianceError:
            if key.limits.tpm is not None:
                self._bucket(self._tokens, key.id, key.limits.tpm).give_back(tokens)
            raise

    def _take_tokens(self, key: Key, tokens: int) -> None:
        """Count a call's tokens.

        Raises:
            InvalidRequest: no minute of this key has so many.
            RateLimited: the key has used up its tokens.
        """
        limits = key.limits
        if limits.tpm is None:
            return
        if tokens > limits.tpm:
            raise InvalidRequest(
                f"the call has {tokens} tokens and this key is limited to {limits.tpm} tokens a "
                "minute: split it"
            )
        bucket = self._bucket(self._tokens, key.id, limits.tpm)
        if not bucket.take(tokens):
            wait_s = bucket.wait_s(tokens)
            if limits.rpm is not None:
                # Who comes back needs a request too; this one is spent, or refusing would be free.
                wait_s = max(wait_s, self._bucket(self._requests, key.id, limits.rpm).wait_s(1))
            raise RateLimited(limit=f"{limits.tpm} tokens a minute", retry_after_s=wait_s)

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

    def _bucket(self, buckets: dict[str, Bucket], key_id: str, rate: int) -> Bucket:
        """Return a key's bucket, refilled, and with the rate that the key has now."""
        now_ns = self._clock.monotonic_ns()
        bucket = buckets.get(key_id)
        if bucket is None:
            bucket = buckets[key_id] = Bucket.full(rate, now_ns)
        bucket.refill(now_ns)
        if bucket.rate != rate:
            bucket.change_rate(rate)
        return bucket
