"""Events: the listeners of the event stream, for as long as the server serves.

Owns the number of listeners and the rhythm.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

from appliance.core.errors import QueueFull

LISTENERS_MAX = 16
LOOK_S = 0.25
"""How soon a stream ends once the server stops."""
RETRY_S = 5


class Events:
    """The listeners of one server."""

    def __init__(self) -> None:
        self.listeners = 0

    def __repr__(self) -> str:
        """Say how many listen."""
        return f"<Events [{self.listeners} listeners]>"

    def require_room(self) -> None:
        """Refuse one listener too many.

        Raises:
            QueueFull: as said.
        """
        if self.listeners >= LISTENERS_MAX:
            raise QueueFull(retry_after_s=RETRY_S)

    async def ticks(self, every_s: float, ended: Callable[[], bool]) -> AsyncIterator[None]:
        """Yield now and then every so many seconds, until `ended`; nothing to one too many."""
        if self.listeners >= LISTENERS_MAX:
            return  # several were let in at the same moment
        self.listeners += 1
        try:
            while not ended():
                yield
                left_s = every_s
                while left_s > 0 and not ended():
                    await asyncio.sleep(min(LOOK_S, left_s))
                    left_s -= LOOK_S
        finally:
            self.listeners -= 1
