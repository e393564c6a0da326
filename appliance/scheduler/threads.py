"""Threads: a few workers with large stacks, for tokenizers and for writing large answers.

Owns their stack size: some of llama.cpp's pre-tokenizers recurse once for each character, and
50,000 letters overflow an ordinary stack.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

from appliance.core.errors import QueueFull

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

STACK_BYTES = 512 << 20
"""Address space, not memory: pages are taken when they are touched."""


class ThreadPool:
    """Runs functions off the event loop; bounded."""

    def __init__(self, *, workers: int, calls_max: int) -> None:
        self._calls_max = calls_max
        self._calls = 0
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="tokenizer")
        self._start(workers)

    def __repr__(self) -> str:
        """Say how many calls are in it."""
        return f"<ThreadPool [{self._calls}/{self._calls_max} calls]>"

    async def run(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Return what the function returns, computed on a worker.

        Raises:
            QueueFull: as many calls as are allowed are waiting already.
        """
        if self._calls >= self._calls_max:
            raise QueueFull(retry_after_s=1)
        return await self.run_admitted(function, *arguments)

    async def run_admitted(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Return what the function returns; for calls that are counted and bounded elsewhere."""
        self._calls += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._executor, function, *arguments)
        finally:
            self._calls -= 1

    def close(self) -> None:
        """Let the workers finish what they began."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _start(self, workers: int) -> None:
        """Make every worker now: the size of a stack is fixed when its thread begins."""
        before = threading.stack_size(STACK_BYTES)
        try:
            everyone = threading.Barrier(workers + 1)
            for _ in range(workers):
                self._executor.submit(everyone.wait)
            everyone.wait()
        finally:
            threading.stack_size(before)
