"""Pace: how fast an address is answered that asks without a key.

Owns one schedule for each address (the generic cell rate algorithm, ITU-T I.371): who asks more
often than allowed waits for the answer, and so asks less often. Nobody is refused: a monitor that
looks too often is slowed down, and what is paid for is not.
"""

import asyncio
from collections import OrderedDict

from appliance.accounts.failed_auth import network_of
from appliance.core.clock import Clock

NS_PER_S = 1_000_000_000
BURST_NS = NS_PER_S
"""An address that was silent may ask for so long at once."""
WAIT_MAX_NS = 2 * NS_PER_S
"""Longer waits would only hold more connections open."""


class Pace:
    """Slows down the addresses of one server."""

    def __init__(self, clock: Clock, *, per_second: int, addresses_max: int) -> None:
        self._clock = clock
        self._each_ns = NS_PER_S // per_second
        self._addresses_max = addresses_max
        self._due_ns: OrderedDict[str, int] = OrderedDict()
        """By network, when the next request is on time; the one that asked last at the end."""

    def __repr__(self) -> str:
        """Count what is held."""
        return f"<Pace [{len(self._due_ns)} addresses]>"

    async def wait(self, address: str) -> None:
        """Return when an answer to this address is on time, after two seconds at the latest."""
        early_ns = self._early_ns(network_of(address))
        if early_ns > 0:
            await asyncio.sleep(early_ns / NS_PER_S)

    def _early_ns(self, network: str) -> int:
        """Count one request; return by how much it came too early."""
        now_ns = self._clock.monotonic_ns()
        due_ns = max(self._due_ns.pop(network, now_ns), now_ns) + self._each_ns
        early_ns = min(due_ns - now_ns - BURST_NS, WAIT_MAX_NS)
        self._due_ns[network] = min(due_ns, now_ns + BURST_NS + WAIT_MAX_NS)
        if len(self._due_ns) > self._addresses_max:
            self._due_ns.popitem(last=False)
        return early_ns
