"""Threads: a few workers with large stacks, for tokenizers and for writing large answers.

Owns whose turn it is: start-time fair queueing (Goyal, Vin, Cheng: "Start-time Fair Queuing",
SIGCOMM 1996) between keys, so that what one key has waiting does not delay the others by more than
what runs. Owns the workers' stack size, too: some of llama.cpp's pre-tokenizers recurse once for
each character, and 50,000 letters overflow an ordinary stack.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import TypeVar, TypeVarTuple

from appliance.core.errors import QueueFull

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

STACK_BYTES = 512 << 20
"""Address space, not memory: pages are taken when they are touched."""


@dataclass(order=True, slots=True)
class _Waiting:
    """One call that waits for a worker."""

    start_tag: int
    number: int
    """Of calls with one tag, the one that came first comes first."""
    run: Callable[[], None] = field(compare=False)
    cancel: Callable[[], bool] = field(compare=False)


class ThreadPool:
    """Runs functions off the event loop; bounded, in all and for each key."""

    def __init__(self, *, workers: int, calls_max: int, per_key_max: int | None = None) -> None:
        """Start the workers; `per_key_max` is None for a pool in which keys are not told apart."""
        self._calls_max = calls_max
        self._per_key_max = calls_max if per_key_max is None else per_key_max
        self._calls = 0
        self._by_key: Counter[str] = Counter()
        self._counting = threading.Lock()
        """Guards everything here."""
        self._waiting: list[_Waiting] = []
        """A heap: what comes next has the least start tag."""
        self._finish_tags: dict[str, int] = {}
        """Of each key, the work that it was given or has waiting."""
        self._virtual_time = 0
        self._numbers = count()
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="tokenizer")
        self._start(workers)

    def __repr__(self) -> str:
        """Say how many calls are in it."""
        return f"<ThreadPool [{self._calls}/{self._calls_max} calls]>"

    def submit(
        self, function: Callable[[*Ts], T], *arguments: *Ts, key: str = "", cost: int = 1
    ) -> Future[T]:
        """Queue a call in the turn of a key, and return the future of its result.

        `cost` is its work, in any unit that all calls share. The future is done when the thread
        has returned: cancelling it does not stop a function that has begun.

        Raises:
            QueueFull: as many calls as are allowed, of this key or of all, wait or run already.
        """
        if self._calls >= self._calls_max or self._by_key[key] >= self._per_key_max:
            raise QueueFull(retry_after_s=1)
        return self._begin(function, *arguments, key=key, cost=cost)

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
        self._executor.shutdown(wait=False, cancel_futures=True)
        with self._counting:
            dropped, self._waiting = self._waiting, []
        for waiting in dropped:
            waiting.cancel()
        self._executor.shutdown(wait=wait)

    def _begin(
        self, function: Callable[[*Ts], T], *arguments: *Ts, key: str = "", cost: int = 1
    ) -> Future[T]:
        future: Future[T] = Future()
        with self._counting:
            start_tag = max(self._virtual_time, self._finish_tags.get(key, 0))
            self._finish_tags[key] = start_tag + max(1, cost)
            self._calls += 1
            self._by_key[key] += 1
            waiting = _Waiting(
                start_tag,
                next(self._numbers),
                run=lambda: _run(future, function, *arguments),
                cancel=future.cancel,
            )
            heappush(self._waiting, waiting)
        future.add_done_callback(lambda _: self._ended(key))
        try:
            self._executor.submit(self._run_next)
        except RuntimeError:  # it is closed
            future.cancel()
            raise
        return future

    def _run_next(self) -> None:
        """Run what comes next; on a worker, once for each call that was queued."""
        with self._counting:
            if not self._waiting:
                return
            waiting = heappop(self._waiting)
            self._virtual_time = max(self._virtual_time, waiting.start_tag)
        waiting.run()

    def _ended(self, key: str) -> None:
        with self._counting:
            self._calls -= 1
            self._by_key[key] -= 1
            if not self._by_key[key]:
                del self._by_key[key]
                # What it was given is forgotten with its last call, once others were given as much.
                for name in [
                    name
                    for name, tag in self._finish_tags.items()
                    if tag <= self._virtual_time and name not in self._by_key
                ]:
                    del self._finish_tags[name]

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


def _run(future: Future[T], function: Callable[[*Ts], T], *arguments: *Ts) -> None:
    """Give a future the result of a call, unless it was cancelled before."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function(*arguments)
    except BaseException as error:  # noqa: BLE001 - the caller's, whatever it is
        future.set_exception(error)
    else:
        future.set_result(result)
