"""WriteRequest: an operation on its way to the writer, and where its end is reported.

Owns the two ways of waiting: a thread that blocks and a coroutine that awaits.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]
"""Reads and writes inside the writer's transaction; raising undoes this operation alone. It may be
run twice, so that it must do nothing but that."""


class Reply(Protocol):
    """Where an operation's end is reported, on the writer's thread."""

    def done(self, result: Any) -> None:
        """Take the result of an operation whose commit is through."""

    def failed(self, error: BaseException) -> None:
        """Take the error of an operation that changed nothing."""


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """What to do, how surely, and whom to tell."""

    operation: Operation[Any]
    reply: Reply
    durable: bool
    """Its commit is flushed to the disk before the reply."""
    essential: bool
    """It finishes something that was begun: it may use the reserve of a full disk."""


class SyncReply:
    """Reports to a thread that waits."""

    def __init__(self) -> None:
        self.future: Future[Any] = Future()

    def done(self, result: Any) -> None:
        """Wake the thread."""
        if not self.future.done():
            self.future.set_result(result)

    def failed(self, error: BaseException) -> None:
        """Raise in the thread."""
        if not self.future.done():
            self.future.set_exception(error)


class AsyncReply:
    """Reports to a coroutine; one that was cancelled is left alone."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()

    def done(self, result: Any) -> None:
        """Wake the coroutine."""
        self._tell(result, None)

    def failed(self, error: BaseException) -> None:
        """Raise in the coroutine."""
        self._tell(None, error)

    def _tell(self, result: Any, error: BaseException | None) -> None:
        # A loop that has ended meanwhile refuses: nobody waits any more.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._finish, result, error)

    def _finish(self, result: Any, error: BaseException | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)
