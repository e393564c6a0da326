"""Writer: the one thread that writes to the database, and its natural group commit.

Owns the connection, the queue of write requests and the order of commits. While one commit is on
its way to the disk the queue fills; everything in it becomes the next transaction. `disk_state.py`
decides what follows from an error of the disk.
"""

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from appliance.core.errors import (
    InvalidRequest,
    LedgerUnavailable,
    QueueFull,
    StorageFull,
    StoreFailed,
)
from appliance.store.checkpointer import Checkpointer
from appliance.store.database import Inspection, Migration, connect
from appliance.store.disk_state import DiskState, Spare
from appliance.store.error_class import TOO_LARGE, classify
from appliance.store.files_in_place import FilesInPlace
from appliance.store.reserve import PAUSE_S
from appliance.store.write_request import (
    AsyncReply,
    Operation,
    Outcome,
    SyncReply,
    T,
    WriteRequest,
    report,
)

log = logging.getLogger("gigarouter.store")

BATCH_MAX = 512
"""Operations in one transaction; bounds how long the first of them waits for its commit."""
CLOSE_SECONDS = 30.0
"""How long `close` waits for the operations in the queue."""


def _nothing() -> None:
    """Take over nothing."""


class Writer:
    """Runs operations one after the other, each of them entirely or not at all."""

    def __init__(
        self,
        path: Path,
        migrations: Sequence[Migration],
        *,
        writes_max: int,
        reserve: Spare,
        inspect: Inspection = lambda _: None,
        follow: Callable[[sqlite3.Connection], Callable[[], None]] = lambda _: _nothing,
        committed: Inspection = lambda _: None,
    ) -> None:
        """Open the database.

        `inspect` may refuse an existing database before it is changed. `follow` is called on the
        writer's thread before each commit, inside the transaction; what it returns is called right
        after the commit, before its replies, and so is `committed`. Neither of these two may raise.

        Raises:
            StoreFailed: the database cannot be opened, or was refused.
        """
        self.path = path
        """For readers, which open connections of their own."""
        self._follow, self._committed = follow, committed
        self._disk = DiskState(reserve)
        self._connection = connect(path, migrations, inspect, copy_before_migrating=True)
        self._files = FilesInPlace(path)
        self._checkpointer = Checkpointer(self._connection)
        self._writes_max = writes_max
        self._mailbox: queue.SimpleQueue[WriteRequest | None] = queue.SimpleQueue()
        self._synchronous = "FULL"
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="ledger-writer", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        """Show the length of the queue and the state of the disk."""
        is_closed = self._closed and not self.broken.done()
        state = "closed" if is_closed else self._disk.word
        return f"<Writer [{self._mailbox.qsize()} waiting | {state}]>"

    @property
    def broken(self) -> Future[str]:
        """Done when the disk failed, with the reason: no commit is acknowledged any more."""
        return self._disk.broken

    @property
    def is_short(self) -> bool:
        """Whether the disk is full, so that nothing new begins."""
        return self._disk.is_full

    def call(self, operation: Operation[T], *, durable: bool = True, essential: bool = True) -> T:
        """Run an operation and block until its commit.

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

        With `durable=False` the commit survives the end of this process but perhaps not a loss of
        power, and costs no disk flush. With `essential=False` the operation is refused while the
        disk is full. Cancelling the await does not undo the operation.

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
        """Refuse every operation from now on, because the content cannot be relied on."""
        self._disk.fail(StoreFailed(reason))

    def close(self) -> None:
        """Finish the queue, copy the write-ahead log into the file, and close it."""
        if not self._closed:
            self._closed = True
            self._mailbox.put(None)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            log.error("the disk does not answer; what waits for it was not acknowledged")

    def require_room(self, *, essential: bool = False) -> None:
        """Refuse what `run` would refuse now.

        Raises:
            QueueFull: too many operations wait.
            StorageFull: the disk is full, and it is not essential.
            LedgerUnavailable: the disk failed, or the database is closed.
        """
        self._disk.require_whole()
        if self._closed:
            raise LedgerUnavailable("it is closed")
        if self._disk.is_full and not essential:
            raise StorageFull
        if self._mailbox.qsize() >= self._writes_max:
            raise QueueFull(retry_after_s=1)

    def _post(self, request: WriteRequest) -> None:
        self.require_room(essential=request.essential)
        self._mailbox.put(request)

    def _work(self) -> None:
        """Serve the queue until it is closed.

        No error ends the thread: any error that is not handled below marks the database as broken,
        and every request, now or later, is refused instead of waiting for ever.
        """
        last = False
        while not last:
            batch: list[WriteRequest] = []
            try:
                batch, last = self._collect()
                self._disk.look_for_room()
                if batch:
                    self._commit(batch)
            except BaseException as error:
                log.exception("the writer failed")
                self._disk.fail(error)
                for request in batch:
                    request.reply.failed(LedgerUnavailable(self.broken.result()))
        try:
            self._connection.close()
        except sqlite3.Error as error:
            log.exception("closing the database failed")
            self._disk.fail(error)

    def _collect(self) -> tuple[list[WriteRequest], bool]:
        """Wait for requests and take all in the queue; return whether they are the last."""
        batch: list[WriteRequest] = []
        try:
            request = self._mailbox.get(timeout=PAUSE_S if self._disk.is_full else None)
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
            self._disk.require_whole()
            try:
                outcomes = self._transact(batch)
            except sqlite3.Error as error:
                if not self._made_room(error):
                    raise
                outcomes = self._transact(batch)
        except Exception as error:  # noqa: BLE001 - whatever it is, each request is answered
            self._undo()
            refusal = self._disk.refusal(error)
            for request in batch:
                request.reply.failed(refusal)
            return
        report(outcomes)
        self._checkpoint()

    def _transact(self, batch: list[WriteRequest]) -> list[Outcome]:
        self._files.require()
        self._flush_on_commit(any(request.durable for request in batch))
        self._connection.execute("BEGIN IMMEDIATE")
        outcomes = [(request.reply, *self._apply(request)) for request in batch]
        take_over = self._follow(self._connection)
        self._connection.execute("COMMIT")
        take_over()
        self._committed(self._connection)
        return outcomes

    def _apply(self, request: WriteRequest) -> tuple[Any, BaseException | None]:
        """Run one operation so that its failure undoes it and nothing else."""
        if self._disk.is_full and not request.essential:
            return None, StorageFull()
        self._connection.execute("SAVEPOINT operation")
        try:
            result = request.operation(self._connection)
        except Exception as error:
            if isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.IntegrityError):
                raise  # the database itself is in trouble: the whole transaction goes
            # A refusal, or a bug in one operation: the others of the batch go on.
            self._connection.execute("ROLLBACK TO operation")
            self._connection.execute("RELEASE operation")
            is_too_large = isinstance(error, OverflowError)  # a number that could not be bound
            return None, InvalidRequest(TOO_LARGE) if is_too_large else error
        self._connection.execute("RELEASE operation")
        return result, None

    def _flush_on_commit(self, durable: bool) -> None:  # noqa: FBT001 - its one argument
        wanted = "FULL" if durable else "NORMAL"
        if wanted != self._synchronous:
            self._connection.execute(f"PRAGMA synchronous = {wanted}")
            self._synchronous = wanted

    def _checkpoint(self) -> None:
        """Copy a long log into the database; what was committed is safe without that."""
        if self.broken.done():
            return
        try:
            self._checkpointer.run_if_due(self._connection)
        except Exception as error:  # noqa: BLE001 - it decides whether the disk can be trusted
            if isinstance(error, sqlite3.Error) and (
                # In the space of the reserve, or at the next commit: until then the log grows.
                self._made_room(error) or classify(error) == "full"
            ):
                return
            self._undo()
            self._disk.refusal(error)

    def _made_room(self, error: sqlite3.Error) -> bool:
        """Give up the reserve if the disk is full; return whether another try has more room."""
        if self._disk.is_full or classify(error) != "full":
            return False
        self._undo()
        return self._disk.make_room(error)

    def _undo(self) -> None:
        if self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error as error:
                self._disk.fail(error)
