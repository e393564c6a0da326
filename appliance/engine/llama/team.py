"""Team: the threads with which one context computes.

Owns how many they are and on which cores, for one call after the other.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from appliance.engine.llama.affinity import CoreAllocator

POOLS_MAX = 8
"""Pools that are kept: a worker that computes on the same cores again finds its own."""


class Threads(Protocol):
    """What the library and the system do with threads; see `NativeThreads`."""

    can_place: bool

    def allowed(self) -> frozenset[int]:
        """Return the cores that the calling thread may run on."""
        ...

    def allow(self, cores: frozenset[int]) -> None:
        """Let the calling thread run on these cores."""
        ...

    def set_count(self, context: int, threads: int) -> None:
        """Compute the context's next calls with so many threads."""
        ...

    def open_pool(self, cores: frozenset[int]) -> int:
        """Return a pool that places one thread on each of the cores."""
        ...

    def attach(self, context: int, pool: int | None) -> None:
        """Place the threads of the context's next calls by a pool, or leave them to the kernel."""
        ...

    def free_pool(self, pool: int) -> None:
        """Free a pool that no context computes with."""
        ...


class ThreadTeam:
    """The threads of one context; used by the thread that owns the context."""

    def __init__(self, context: int, cores: CoreAllocator, threads: Threads) -> None:
        """Compute with one thread, until `computing` says otherwise."""
        self._context = context
        self._cores = cores
        self._threads = threads
        self._last: frozenset[int] = frozenset()
        self._pools: OrderedDict[frozenset[int], int] = OrderedDict()
        """By the cores that they place threads on; the one used last is last."""
        self._is_attached = False

    @contextmanager
    def computing(self, count: int) -> Iterator[None]:
        """Let the context compute with `count` threads during the block, on cores of their own."""
        threads = self._threads
        # The mask is read each time: the cores of a container can change while it runs.
        allowed = threads.allowed() if threads.can_place and count > 1 else frozenset()
        claimed = self._cores.claim(count, allowed, last=self._last)
        try:
            self._place(claimed, count)
            yield
        finally:
            if claimed:
                self._cores.release(claimed)
                self._last = claimed
                # The calling thread is one of the team, and was moved to one core with the others.
                threads.allow(allowed)

    def close(self) -> None:
        """Free the pools; the context was freed before."""
        while self._pools:
            self._threads.free_pool(self._pools.popitem()[1])

    def _place(self, cores: frozenset[int], count: int) -> None:
        if cores:
            self._threads.attach(self._context, self._pool(cores))
            self._is_attached = True
        elif count > 1 and self._is_attached:
            # The pool that is attached may have fewer rows than there will be threads.
            self._threads.attach(self._context, None)
            self._is_attached = False
        self._threads.set_count(self._context, count)

    def _pool(self, cores: frozenset[int]) -> int:
        pool = self._pools.get(cores)
        if pool is None:
            if len(self._pools) >= POOLS_MAX:
                self._threads.free_pool(self._pools.popitem(last=False)[1])
            pool = self._pools[cores] = self._threads.open_pool(cores)
        self._pools.move_to_end(cores)
        return pool
