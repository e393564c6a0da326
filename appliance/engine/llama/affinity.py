"""Affinity: which cores the threads of a call compute on.

The threads of one call wait for each other after every operation, so two of them on one core halve
its speed. Linux brings that about by itself: it wakes an OpenMP thread on the core of the thread
that wakes it, and one short text on two cores then takes 24 ms instead of 5, for seconds on end.
So each call with several threads gets a core for each, and calls that compute at the same time get
different ones while there are free ones.
"""

import threading
from collections import Counter
from collections.abc import Mapping

from appliance import machine
from appliance.core.once import once


class CoreAllocator:
    """Gives cores to the calls that compute now; safe from every thread."""

    def __init__(self, ranks: Mapping[int, int], *, is_shared: bool = False) -> None:
        """Begin with every core free.

        `ranks` are those of `machine.core_ranks`. `is_shared` says that other processes use the
        same cores, so that only the kernel knows which are free; then no core is given out.
        """
        self._ranks = ranks
        self._is_shared = is_shared
        self._calls: Counter[int] = Counter()
        """Calls that compute on each core."""
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """List the busy cores."""
        return f"<CoreAllocator [busy: {sorted(+self._calls)}]>"

    def claim(self, count: int, allowed: frozenset[int], *, last: frozenset[int]) -> frozenset[int]:
        """Return `count` of the allowed cores until they are released.

        Cores with the fewest calls come first, then those that share no physical core, then those
        of the caller's last call, whose caches may still hold the weights. Empty, with nothing to
        release, where placing gains nothing: for one thread, and for more threads than cores.
        """
        if self._is_shared or not 1 < count <= len(allowed):
            return frozenset()
        with self._lock:
            calls, ranks = self._calls, self._ranks
            order = sorted(
                allowed,
                key=lambda core: (calls[core], ranks.get(core, 0), core not in last, core),
            )
            cores = frozenset(order[:count])
            calls.update(cores)
        return cores

    def release(self, cores: frozenset[int]) -> None:
        """Take back what `claim` gave."""
        with self._lock:
            self._calls.subtract(cores)


@once
def process_cores() -> CoreAllocator:
    """Return the one allocator of this process."""
    return CoreAllocator(machine.core_ranks(), is_shared=machine.has_cpu_quota())
