"""ReadAhead: an iterator that may block, read on a thread that nobody waits for.

Owns the bound on what is read ahead. The threads of the loop's executor would not do: a program
ends only when they do, and standard input may be silent for ever.
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class ReadAhead(Generic[T]):
    """The items of one iterator, for one reader of the running loop."""

    def __init__(self, items: Iterator[T], size: int) -> None:
        """Begin to read; up to `size` items wait to be taken."""
        self._items = items
        self._loop = asyncio.get_running_loop()
        self._room = threading.Semaphore(size)
        self._read: asyncio.Queue[T | BaseException | None] = asyncio.Queue()
        self._is_closed = False
        threading.Thread(target=self._run, name="read-ahead", daemon=True).start()

    async def next(self) -> T | None:
        """Return the next item; None: there is none, and it is not asked for again.

        Raises:
            Exception: what the iterator raised.
        """
        found = await self._read.get()
        self._room.release()
        if isinstance(found, BaseException):
            raise found
        return found

    def close(self) -> None:
        """Read no more; an item that is being read is not waited for."""
        self._is_closed = True
        self._room.release()

    def _run(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody reads
            try:
                for item in self._items:
                    self._room.acquire()
                    if self._is_closed:
                        return
                    self._loop.call_soon_threadsafe(self._read.put_nowait, item)
            except Exception as error:  # noqa: BLE001 - raised where the item is asked for
                self._loop.call_soon_threadsafe(self._read.put_nowait, error)
            else:
                self._loop.call_soon_threadsafe(self._read.put_nowait, None)
