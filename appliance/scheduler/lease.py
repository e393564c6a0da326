"""Lease: a call's right to a model's tokenizer and engine.

Both hold native memory. While any lease on a model lives, neither is freed: unloading, replacing
and stopping the server wait. A lease lives until its owner has released it *and* every thread that
was started under it has returned, because cancelling a call does not stop its thread.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar, TypeVarTuple

from appliance.scheduler.pool_entry import WeightsKey
from appliance.scheduler.threads import ThreadPool

log = logging.getLogger("gigarouter.residency")

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Leases:
    """Counts the leases on each model; call on the loop's thread."""

    def __init__(self, on_free: Callable[[WeightsKey], None]) -> None:
        """`on_free` is called when the last lease on a model ends."""
        self._counts: Counter[WeightsKey] = Counter()
        self._on_free = on_free
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        """Count them."""
        return f"<Leases [{self._counts.total()} on {len(self._counts)} models]>"

    def count(self, key: WeightsKey) -> int:
        """Return how many leases and threads use a model."""
        return self._counts[key]

    def acquire(self, key: WeightsKey) -> None:
        """Begin to use a model."""
        self._counts[key] += 1

    def release(self, key: WeightsKey) -> None:
        """End what `acquire` began."""
        self._counts[key] -= 1
        if self._counts[key]:
            return
        del self._counts[key]
        self._changed.set()
        try:
            self._on_free(key)
        except Exception:
            # The call that releases is answered, and perhaps charged: this must not fail it.
            log.exception("a model could not be freed, or the next one loaded")

    async def all_free(self) -> None:
        """Return once no model is leased."""
        while self._counts:
            self._changed.clear()
            await self._changed.wait()


class Lease:
    """One lease; `Residency.lease` makes it and releases it."""

    def __init__(self, leases: Leases, key: WeightsKey, threads: ThreadPool) -> None:
        """Begin to use the model with this key."""
        self._leases, self._key, self._threads = leases, key, threads
        self._loop = asyncio.get_running_loop()
        leases.acquire(key)

    async def in_thread(
        self, function: Callable[[*Ts], T], *arguments: *Ts, key: str = "", cost: int = 1
    ) -> T:
        """Return what a function returns that uses the model's tokenizer, computed on a thread.

        It waits in the turn of `key`, for as much as it costs. The model stays until the thread has
        returned, even if the caller is cancelled before.

        Raises:
            QueueFull: too many calls wait for a thread.
        """
        future = self._threads.submit(function, *arguments, key=key, cost=cost)
        self._leases.acquire(self._key)
        future.add_done_callback(lambda _: self._returned())
        return await asyncio.wrap_future(future)

    def release(self) -> None:
        """End the owner's part of the lease."""
        self._leases.release(self._key)

    def _returned(self) -> None:
        """Note, on whatever thread, that a thread has returned."""
        # A loop that has ended meanwhile refuses: its process frees nothing any more.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._leases.release, self._key)
