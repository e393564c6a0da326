"""FailedAuthLimiter: how many invalid credentials an address may try.

Owns one token bucket for each address that failed lately.
"""

import ipaddress
from collections import OrderedDict
from functools import lru_cache

from appliance.accounts.bucket import Bucket
from appliance.core.clock import Clock
from appliance.core.errors import TooManyInvalidKeys

IPV6_NETWORK_BITS = 64
"""One customer's network: counting single addresses of it would count nothing."""
ADDRESSES_REMEMBERED = 1_000
"""Whose network is not worked out again."""


class FailedAuthLimiter:
    """Counts failed authentications."""

    def __init__(self, clock: Clock, *, failures_per_minute: int, addresses_max: int) -> None:
        self._clock = clock
        self._failures_per_minute = failures_per_minute
        self._addresses_max = addresses_max
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        """By network, the one that failed last at the end."""

    def __repr__(self) -> str:
        """Count what is held."""
        return f"<FailedAuthLimiter [{len(self._buckets)} addresses]>"

    def count(self, address: str) -> None:
        """Count one failed authentication from an address.

        Raises:
            TooManyInvalidKeys: the address has used up its failures.
        """
        network, now_ns = network_of(address), self._clock.monotonic_ns()
        bucket = self._buckets.get(network)
        if bucket is None:
            if len(self._buckets) >= self._addresses_max:
                self._buckets.popitem(last=False)
            bucket = self._buckets[network] = Bucket.full(self._failures_per_minute, now_ns)
        else:
            self._buckets.move_to_end(network)
        bucket.refill(now_ns)
        if not bucket.take(1):
            raise TooManyInvalidKeys(retry_after_s=bucket.wait_s(1))


@lru_cache(maxsize=ADDRESSES_REMEMBERED)
def network_of(address: str) -> str:
    """Return what is counted together: an IPv4 address, or an IPv6 network of 64 bits.

    What is no address (a Unix socket has none) is one network.
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(found), IPV6_NETWORK_BITS), strict=False))
