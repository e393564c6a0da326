"""Writer: the one thread that owns the database, and its natural group commit.

Owns the connection, the mailbox, the order of commits, and what becomes of them when the disk is
full or fails. While one commit is on its way to the disk the mailbox fills; everything in it
becomes the next transaction.

A full disk is survived: the reserve is given up, what was begun is finished in its space, and
nothing new begins until it could be taken back. A disk that fails is not: after a failed flush the
kernel forgets the pages, and trying again would lie (wiki.postgresql.org/wiki/Fsync_Errors). The
writer is then broken for good, and whoever runs it must stop.
"""

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

from appliance.core.errors import (
    ApplianceError,
    LedgerUnavailable,
    QueueFull,
    RetryableError,
    StorageFull,
    StoreFailed,
)
from appliance.store.database import Inspection, Migration, connect
from appliance.store.error_class import classify
from appliance.store.log import Log
from appliance.store.reserve import PAUSE_S, Reserve
from appliance.store.write_request import AsyncReply, Operation, Reply, SyncReply, T, WriteRequest

log = logging.getLogger("gigarouter.store")

BATCH_MAX = 512
"""Operations in one transaction: bounds how long the first of them waits for its commit."""
FRAMES_MAX = 1_000
"""Pages in the log above which it is folded into the database: 4 MiB."""
CLOSE_SECONDS = 30.0
"""How long the disk may take to finish what waits."""

Outcome = tuple[Reply, Any, BaseException | None]


class Writer:
    """Runs operations one after the other, each in or out as a whole."""

    def __init__(
        self,
        path: Path,
        migrations: Sequence[Migration],
        *,
        writes_max: int,
        reserve: Reserve,
        inspect: Inspection = lambda _: None,
        committed: Inspection = lambda _: None,
    ) -> None:
        """Open the database.

        `inspect` may refuse one that exists before anything is changed; `committed` is called on
        the writer's thread after each commit, before its replies, and must not raise.

        Raises:
            StoreFailed: the database cannot be opened, or was refused.
        """
        self._committed = committed
        self._reserve = reserve
        self._short = not reserve.prepare()
        """True: the disk is full, and only what was begun is finished."""
        self._connection = connect(path, migrations, inspect)
        [(page_bytes,)] = self._connection.execute("PRAGMA page_size")
        self._path, self._inode = path, path.stat().st_ino
        self._log = Log(path, page_bytes=page_bytes)
        self._writes_max = writes_max
        self._mailbox: queue.SimpleQueue[WriteRequest | None] = queue.SimpleQueue()
        self._synchronous = "FULL"
        self.broken: Future[str] = Future()
        """Done when the disk failed, with the reason: nothing is ever acknowledged again."""
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="ledger-writer", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        """Say how much waits and whether writing still works."""
        state = (
            "broken"
            if self.broken.done()
            else "closed"
            if self._closed
            else "short of space"
            if self._short
            else "open"
        )
        return f"<Writer [{self._mailbox.qsize()} waiting | {state}]>"

    def call(self, operation: Operation[T], *, durable: bool = True, essential: bool = True) -> T:
        """Run an operation and wait for its commit on this thread.

        Raises:
            QueueFull: too many operations wait.
            StorageFull: the disk is full; nothing of the operation is in the database.
            LedgerUnavailable: the commit failed; nothing of the operation is in the database.
        """
        reply = SyncReply()
        self._post(WriteRequest(operation, reply, durable, essential))
        result: T = reply.future.result()
        return result

    async def run(
        self, operation: Operation[T], *, durable: bool = True, essential: bool = True
    ) -> T:
        """Run an operation and await its commit.

        With `durable=False` the commit is safe against the death of this process but not against
        the loss of power, and costs no disk flush. With `essential=False` the operation begins
        something new, and is refused while the disk is full. Cancelling the await does not undo the
        operation.

        Raises:
            QueueFull: too many operations wait.
            StorageFull: the disk is full; nothing of the operation is in the database.
            LedgerUnavailable: the commit failed; nothing of the operation is in the database.
        """
        reply = AsyncReply(asyncio.get_running_loop())
        self._post(WriteRequest(operation, reply, durable, essential))
        result: T = await reply.future
        return result

    def fail_permanently(self, reason: str) -> None:
        """Let nothing be written any more, because what is there cannot be trusted."""
        self._break(StoreFailed(reason))

    def close(self) -> None:
        """Finish what waits, fold the write-ahead log into the file, and close it."""
        if self._closed:
            return
        self._closed = True
        self._mailbox.put(None)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            log.error("the disk does not answer; what waits for it was not acknowledged")

    def _post(self, request: WriteRequest) -> None:
        if self.broken.done():
            raise LedgerUnavailable(self.broken.result())
        if self._closed:
            raise LedgerUnavailable("it is closed")
        if self._short and not request.essential:
            raise StorageFull
        if self._mailbox.qsize() >= self._writes_max:
            raise QueueFull(retry_after_s=1)
        self._mailbox.put(request)

    def _work(self) -> None:
        last = False
        while not last:
            batch, last = self._collect()
            if self._short and self._reserve.take_back():
                self._short = False
                log.info("there is space on the disk again: new calls are served")
            if batch:
                self._commit(batch)
        self._log.close()
        self._connection.close()

    def _collect(self) -> tuple[list[WriteRequest], bool]:
        """Wait for requests and take all that are there; say whether they are the last."""
        batch: list[WriteRequest] = []
        try:
            request = self._mailbox.get(timeout=PAUSE_S if self._short else None)
            while request is not None:
                batch.append(request)
                if len(batch) == BATCH_MAX:
                    return batch, False
                request = self._mailbox.get_nowait()
        except queue.Empty:
            return batch, False
        return batch, True

    def _commit(self, batch: list[WriteRequest]) -> None:
        try:
            if self.broken.done():
                raise LedgerUnavailable(self.broken.result())  # noqa: TRY301 - refused like the rest
            try:
                outcomes = self._transact(batch)
            except sqlite3.Error as error:
                if not self._made_room(error):
                    raise
                outcomes = self._transact(batch)
        except Exception as error:  # noqa: BLE001 - whatever it is, everyone who waits must hear
            refusal = self._refusal(error)
            for request in batch:
                request.reply.failed(refusal)
            return
        for reply, result, problem in outcomes:
            if problem is None:
                reply.done(result)
            else:
                reply.failed(problem)
        self._fold()

    def _transact(self, batch: list[WriteRequest]) -> list[Outcome]:
        self._require_in_place()
        self._flush_on_commit(any(request.durable for request in batch))
        self._connection.execute("BEGIN IMMEDIATE")
        outcomes = [(request.reply, *self._apply(request)) for request in batch]
        self._connection.execute("COMMIT")
        self._committed(self._connection)
        return outcomes

    def _require_in_place(self) -> None:
        """Write nothing into a file that was removed or replaced: nobody would ever read it."""
        with suppress(OSError):
            if self._path.stat().st_ino == self._inode and not self._log.is_removed():
                return
        raise RuntimeError("the database or its log was removed or replaced")

    def _apply(self, request: WriteRequest) -> tuple[Any, BaseException | None]:
        """Run one operation so that its failure undoes it and nothing else."""
        if self._short and not request.essential:
            return None, StorageFull()
        self._connection.execute("SAVEPOINT operation")
        try:
            result = request.operation(self._connection)
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

    def _fold(self) -> None:
        """Fold a long log into the database; what was committed is safe without that."""
        if self.broken.done():
            return
        try:
            if not self._log.has_frames(FRAMES_MAX):
                return
            try:
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            except sqlite3.Error as error:
                # In the space of the reserve, or at the next commit: until then the log grows.
                if not self._made_room(error) and classify(error) != "full":
                    raise
        except Exception as error:  # noqa: BLE001 - it decides whether the disk can be trusted
            self._refusal(error)

    def _made_room(self, error: sqlite3.Error) -> bool:
        """Give up the reserve if the disk is full; return whether another try has more room."""
        if classify(error) != "full" or self._short:
            return False
        self._undo()
        self._short = True
        self._reserve.give_up()
        log.warning("the disk is full: new calls are refused until there is space")
        return not self.broken.done()

    def _refusal(self, error: Exception) -> RetryableError:
        """Return what those hear whose transaction failed; decide whether it was the last one."""
        if isinstance(error, RetryableError):
            return error
        self._undo()
        error_class = classify(error)
        if error_class == "full":
            return StorageFull()
        if error_class == "fatal":
            self._break(error)
        elif not self.broken.done():
            log.warning("nothing was written: %s", error)
        return LedgerUnavailable(str(error))

    def _undo(self) -> None:
        if self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error as error:
                self._break(error)

    def _break(self, error: Exception) -> None:
        if not self.broken.done():
            self.broken.set_result(str(error) or type(error).__name__)
