"""Affinity: a core for each thread of one call.

A call that uses every core is as slow as its slowest thread. Left alone, Linux wakes OpenMP's
worker on the core of the thread that wakes it, where the two wait for each other in turns: one
short text on two cores then takes 24 ms instead of 5, for seconds on end. So the workers are kept
on cores of their own, and the calling thread on its own for the time of such a call.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TASKS = Path("/proc/self/task")


class Affinity:
    """Places the threads of one context; used by the thread that owns the context."""

    def __init__(self) -> None:
        self._cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self._is_placed = False

    @contextmanager
    def spread(self, threads: int) -> Iterator[None]:
        """Keep `threads` threads apart during the block, if that takes all cores.

        With fewer threads than cores, the kernel finds free ones by itself.
        """
        if threads == 1 or threads != len(self._cores):
            yield
            return
        os.sched_setaffinity(0, self._cores[:1])
        try:
            if self._is_placed:
                yield
            else:
                with self._placing_workers():
                    yield
        finally:
            os.sched_setaffinity(0, self._cores)

    @contextmanager
    def _placing_workers(self) -> Iterator[None]:
        """Move the threads that OpenMP starts during the block to the other cores, for good."""
        me = threading.get_native_id()
        comm = TASKS / str(me) / "comm"
        name = f"worker-{me}"  # its workers inherit it, and nobody else has it
        try:
            before = _read(comm)
            comm.write_text(name)
        except OSError:
            yield
            return
        try:
            yield
            self._place(name, me)
        finally:
            comm.write_text(before)

    def _place(self, name: str, me: int) -> None:
        cores = iter(self._cores[1:] * threading.active_count())
        for task in TASKS.iterdir():
            if int(task.name) != me and _read(task / "comm") == name:
                os.sched_setaffinity(int(task.name), {next(cores)})
                self._is_placed = True


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""  # the thread has ended
