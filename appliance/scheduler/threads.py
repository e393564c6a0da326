"""Threads: a few workers with large stacks, for tokenizers and for writing large answers.

Owns their stack size: some of llama.cpp's pre-tokenizers recurse once for each character, and
50,000 letters overflow an ordinary stack.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
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
        self._counting = threading.Lock()
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="tokenizer")
        self._start(workers)

    def __repr__(self) -> str:
        """Say how many calls are in it."""
        return f"<ThreadPool [{self._calls}/{self._calls_max} calls]>"

    def submit(self, function: Callable[[*Ts], T], *arguments: *Ts) -> Future[T]:
        """Begin a call, and return the future of its result.

        The future is done when the thread has returned: cancelling it does not stop a function
        that has begun.

        Raises:
            QueueFull: as many calls as are allowed are waiting or running already.
        """
        if self._calls >= self._calls_max:
            raise QueueFull(retry_after_s=1)
        return self._begin(function, *arguments)

    async def run(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Return what the function returns, computed on a worker.

        Raises:
            QueueFull: as many calls as are allowed are waiting or running already.
        """
        return await asyncio.wrap_future(self.submit(function, *arguments))

    async def run_admitted(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Return what the function returns; for calls that are counted and bounded elsewhere."""
        return await asyncio.wrap_future(self._begin(function, *arguments))

    @property
    def is_idle(self) -> bool:
        """Say whether no call waits or runs."""
        return not self._calls

    def close(self, *, wait: bool = True) -> None:
        """Drop the calls that wait, and return once those that began have ended.

        With `wait=False` it returns at once, and a call that runs is left to the process's end.
        """
        self._executor.shutdown(wait=wait, cancel_futures=True)

    def _begin(self, function: Callable[[*Ts], T], *arguments: *Ts) -> Future[T]:
        self._count(1)
        try:
            future = self._executor.submit(function, *arguments)
        except BaseException:
            self._count(-1)
            raise
        future.add_done_callback(lambda _: self._count(-1))
        return future

    def _count(self, change: int) -> None:
        with self._counting:
            self._calls += change

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
