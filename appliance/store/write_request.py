"""WriteRequest: an operation in the writer's queue, and where its result is reported.

Owns the two kinds of caller: a thread that blocks and a coroutine that awaits.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]
"""Reads and writes inside the writer's transaction; raising undoes this operation alone. It may run
twice, so that it must have no other effect."""


class Reply(Protocol):
    """Where an operation's result is reported, on the writer's thread."""

    def done(self, result: Any) -> None:
        """Take the result of an operation that was committed."""

    def failed(self, error: BaseException) -> None:
        """Take the error of an operation that changed nothing."""


Outcome = tuple[Reply, Any, BaseException | None]
"""Of one operation: where it is reported, its result, or its error."""


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """An operation, its guarantees, and where its result goes."""

    operation: Operation[Any]
    reply: Reply
    durable: bool
    """True: the commit is flushed to the disk before the reply."""
    essential: bool
    """True: it belongs to a call in flight, and may use the reserve of a full disk."""


class SyncReply:
    """Reports to a blocked thread."""

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
    """Reports to a coroutine; one that was cancelled gets nothing."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()

    def done(self, result: Any) -> None:
        """Wake the coroutine."""
        _tell(self.loop, [(self, result, None)])

    def failed(self, error: BaseException) -> None:
        """Raise in the coroutine."""
        _tell(self.loop, [(self, None, error)])

    def finish(self, result: Any, error: BaseException | None) -> None:
        """Wake the coroutine, or raise in it; on its loop's thread."""
        if self.future.done():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


def report(outcomes: Iterable[Outcome]) -> None:
    """Report the ends of many operations; each event loop is woken once for all of its own."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Outcome]] = {}
    for outcome in outcomes:
        reply, result, error = outcome
        if isinstance(reply, AsyncReply):
            by_loop.setdefault(reply.loop, []).append(outcome)
        elif error is None:
            reply.done(result)
        else:
            reply.failed(error)
    for loop, own in by_loop.items():
        _tell(loop, own)


def _tell(loop: asyncio.AbstractEventLoop, outcomes: Sequence[Outcome]) -> None:
    # The loop may be closed by now; then its coroutines are gone too.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(_finish, outcomes)


def _finish(outcomes: Sequence[Outcome]) -> None:
    for reply, result, error in outcomes:
        assert isinstance(reply, AsyncReply)
        reply.finish(result, error)
