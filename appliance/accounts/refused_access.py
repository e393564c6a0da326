"""RefusedAccess: who was refused for want of a good credential, counted by address and minute.

Owns the counts of the minute that runs. A flood leaves a line for each address and minute, not one
for each request.
"""

import asyncio
from collections import Counter
from collections.abc import Callable

from appliance.accounts.failed_auth import network_of

MINUTE_S = 60.0
ADDRESSES_MAX = 100
"""Addresses that get a line of their own in one minute; the others share one."""
OTHERS = "other addresses"

Tell = Callable[[str, dict[str, int]], None]
"""Told an address and how often it was refused, by reason."""


class RefusedAccess:
    """Counts refusals; a chore of the server tells of them each minute."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._counts: dict[str, Counter[str]] = {}

    def __repr__(self) -> str:
        """Count what is held."""
        return f"<RefusedAccess [{len(self._counts)} addresses]>"

    def count(self, address: str, reason: str) -> None:
        """Count one refusal; `reason` is the code of its error."""
        name = network_of(address)
        if name not in self._counts and len(self._counts) >= ADDRESSES_MAX:
            name = OTHERS
        self._counts.setdefault(name, Counter())[reason] += 1

    def flush(self) -> None:
        """Tell of what was counted, and begin anew."""
        counts, self._counts = self._counts, {}
        for address, reasons in counts.items():
            self._tell(address, dict(reasons))

    async def run(self) -> None:
        """Tell each minute until cancelled, and once more then."""
        try:
            while True:
                await asyncio.sleep(MINUTE_S)
                self.flush()
        finally:
            self.flush()
