"""Disconnect: whether the client of a request is still there.

ASGI tells of a client that has hung up by a message that must be awaited. Granian counts a client
that has closed its own side of the connection among these: it sends such a client nothing more.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from appliance.api.request import AnyRequest

WATCH_AFTER_S = 0.02
"""Most calls are answered before this; they are looked after once, before they are charged."""


class ClientGone(Exception):
    """The client hung up; nobody reads an answer any more."""


class ClientWatch:
    """Cancels the task that serves a request once its client has hung up."""

    def __init__(self, request: AnyRequest) -> None:
        """Watch for the calling task; nothing is looked at before `begin`."""
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.has_cancelled = False
        self._request = request
        self._watching: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Look from now on; the second time does nothing."""
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())

    def end(self) -> None:
        """Look no longer."""
        if self._watching is not None:
            self._watching.cancel()

    async def require_connected(self) -> None:
        """Return if the client is still there, and cancel the task as soon as it is not.

        Raises:
            asyncio.CancelledError: it has hung up.
        """
        self.begin()
        # In the first turn the watch hears of a client that is gone; the second is cancelled.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def _watch(self) -> None:
        while True:
            message = await self._request.receive()
            if message["type"] == "http.disconnect":
                self.has_cancelled = True
                self.task.cancel()
                return


@contextmanager
def watched(request: AnyRequest) -> Iterator[ClientWatch]:
    """Cancel what the block awaits as soon as the client of a request hangs up.

    Raises:
        ClientGone: it did; what was cancelled has ended.
    """
    watch = ClientWatch(request)
    beginning = asyncio.get_running_loop().call_later(WATCH_AFTER_S, watch.begin)
    try:
        yield watch
    except asyncio.CancelledError:
        if not watch.has_cancelled:
            raise
        watch.task.uncancel()
        raise ClientGone from None
    finally:
        beginning.cancel()
        watch.end()
