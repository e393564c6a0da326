"""Writer: the one thread that owns the database, and its natural group commit.

Owns the connection, the mailbox and the order of commits. While one commit is on its way to the
disk the mailbox fills; everything in it becomes the next transaction. Deliberately knows nothing of
what an operation means.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

from appliance.core.errors import ApplianceError, QueueFull, StoreFailed
from appliance.store.database import Inspection, Migration, connect

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]
"""Reads and writes inside the writer's transaction; raising undoes this operation alone."""

BATCH_MAX = 512
"""Operations in one transaction: bounds how long the first of them waits for its commit."""


class Reply(Protocol):
    """Where an operation's end is reported, on the writer's thread."""

    def done(self, result: Any) -> None:
        """Take the result of an operation whose commit is through."""

    def failed(self, error: BaseException) -> None:
        """Take the error of an operation that changed nothing."""


class _Letter:
    __slots__ = ("durable", "operation", "reply")

    def __init__(self, operation: Operation[Any], reply: Reply, *, durable: bool) -> None:
        self.operation = operation
        self.reply = reply
        self.durable = durable


class _Blocking:
    """Reports to a thread that waits."""

    def __init__(self) -> None:
        self.future: Future[Any] = Future()

    def done(self, result: Any) -> None:
        self.future.set_result(result)

    def failed(self, error: BaseException) -> None:
        self.future.set_exception(error)


class _Awaiting:
    """Reports to a coroutine; one that was cancelled is left alone."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()

    def done(self, result: Any) -> None:
        self._tell(result, None)

    def failed(self, error: BaseException) -> None:
        self._tell(None, error)

    def _tell(self, result: Any, error: BaseException | None) -> None:
        # A loop that has ended meanwhile refuses: nobody waits any more.
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._finish, result, error)

    def _finish(self, result: Any, error: BaseException | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


class Writer:
    """Runs operations one after the other, each in or out as a whole."""

    def __init__(
        self,
        path: Path,
        migrations: Sequence[Migration],
        *,
        writes_max: int,
        inspect: Inspection = lambda _: None,
        committed: Inspection = lambda _: None,
    ) -> None:
        """Open the database.

        `inspect` may refuse one that exists before anything is changed; `committed` is called on
        the writer's thread after each commit, before its replies, and must not raise.

        Raises:
            StoreFailed: the database cannot be opened, or was refused.
        """
        self._path = path
        self._committed = committed
        self._connection = connect(path, migrations, inspect)
        self._writes_max = writes_max
        self._mailbox: queue.SimpleQueue[_Letter | None] = queue.SimpleQueue()
        self._synchronous = "FULL"
        self._broken: StoreFailed | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="ledger-writer", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        """Say how much waits and whether writing still works."""
        state = "broken" if self._broken else "closed" if self._closed else "open"
        return f"<Writer [{self._mailbox.qsize()} waiting | {state}]>"

    def call(self, operation: Operation[T], *, durable: bool = True) -> T:
        """Run an operation and wait for its commit on this thread.

        Raises:
            QueueFull: too many operations wait.
            StoreFailed: the commit failed; nothing of the operation is in the database.
        """
        reply = _Blocking()
        self._post(_Letter(operation, reply, durable=durable))
        result: T = reply.future.result()
        return result

    async def run(self, operation: Operation[T], *, durable: bool = True) -> T:
        """Run an operation and await its commit.

        With `durable=False` the commit is safe against the death of this process but not against
        the loss of power, and costs no disk flush. Cancelling the await does not undo the
        operation.

        Raises:
            QueueFull: too many operations wait.
            StoreFailed: the commit failed; nothing of the operation is in the database.
        """
        reply = _Awaiting(asyncio.get_running_loop())
        self._post(_Letter(operation, reply, durable=durable))
        result: T = await reply.future
        return result

    def close(self) -> None:
        """Finish what waits, fold the write-ahead log into the file, and close it."""
        if self._closed:
            return
        self._closed = True
        self._mailbox.put(None)
        self._thread.join()

    def _post(self, letter: _Letter) -> None:
        if self._broken:
            raise self._broken
        if self._closed:
            raise StoreFailed(f"{self._path} is closed.")
        if self._mailbox.qsize() >= self._writes_max:
            raise QueueFull(retry_after_s=1)
        self._mailbox.put(letter)

    def _work(self) -> None:
        last = False
        while not last:
            letter = self._mailbox.get()
            batch = []
            while letter is not None:
                batch.append(letter)
                if len(batch) == BATCH_MAX:
                    break
                try:
                    letter = self._mailbox.get_nowait()
                except queue.Empty:
                    break
            last = letter is None
            if batch:
                self._commit(batch)
        self._connection.close()

    def _commit(self, batch: list[_Letter]) -> None:
        try:
            if self._broken:
                raise self._broken
            self._flush_on_commit(any(letter.durable for letter in batch))
            self._connection.execute("BEGIN IMMEDIATE")
            ends = [(letter.reply, *self._apply(letter.operation)) for letter in batch]
            self._connection.execute("COMMIT")
            self._committed(self._connection)
        except (sqlite3.Error, StoreFailed) as error:
            failure = self._fail(error)
            for letter in batch:
                letter.reply.failed(failure)
            return
        for reply, result, problem in ends:
            if problem is None:
                reply.done(result)
            else:
                reply.failed(problem)

    def _apply(self, operation: Operation[Any]) -> tuple[Any, BaseException | None]:
        """Run one operation so that its failure undoes it and nothing else."""
        self._connection.execute("SAVEPOINT operation")
        try:
            result = operation(self._connection)
        except (ApplianceError, sqlite3.IntegrityError) as error:
            self._connection.execute("ROLLBACK TO operation")
            self._connection.execute("RELEASE operation")
            return None, error
        except sqlite3.Error:
            raise  # the database itself is in trouble: the whole transaction goes
        except Exception as error:  # noqa: BLE001 - a bug in one operation must not stop the books
            self._connection.execute("ROLLBACK TO operation")
            self._connection.execute("RELEASE operation")
            return None, error
        self._connection.execute("RELEASE operation")
        return result, None

    def _flush_on_commit(self, durable: bool) -> None:  # noqa: FBT001 - its one argument
        wanted = "FULL" if durable else "NORMAL"
        if wanted != self._synchronous:
            self._connection.execute(f"PRAGMA synchronous = {wanted}")
            self._synchronous = wanted

    def _fail(self, error: Exception) -> StoreFailed:
        if isinstance(error, StoreFailed):
            return error
        if self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error:
                self._broken = StoreFailed(f"{self._path}: {error}; the books are closed.")
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_IOERR", "SQLITE_CORRUPT", "SQLITE_NOTADB")):
            # After a failed flush the kernel forgets the pages: retrying would lie.
            self._broken = StoreFailed(f"{self._path}: {error}; the books are closed.")
        return self._broken or StoreFailed(f"{self._path}: {error}; nothing was written.")
